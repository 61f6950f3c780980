"""Labels as other programs write them: which format they are of, and how annotations are drawn."""
