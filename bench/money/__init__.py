"""Whether every nano-dollar is accounted for: mixed calls, scripted faults, a gateway killed in the middle."""
