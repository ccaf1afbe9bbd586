"""What people look at: the terminal, figures, the report."""
