"""Tasks over tables that users bring: which columns, which labels, and what kind of task that makes."""
