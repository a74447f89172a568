"""Policy files: what people may write, checked before it is in force."""
