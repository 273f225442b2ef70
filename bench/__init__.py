"""Speed suites, one file for each operator or workload, and the yardsticks they measure against."""
