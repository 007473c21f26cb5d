"""What turns `book/` into notebooks and pages. Run each as `python -m tools.NAME`."""
