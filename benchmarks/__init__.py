"""What is measured, and where the measured numbers are written; prints tables, asserts nothing."""
