"""Whether comparisons of sellers say what is so: false alarms, power, equivalence."""
