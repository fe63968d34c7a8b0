"""Reading run folders back: reports, plots, tables, comparisons."""
