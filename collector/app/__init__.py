"""The composition root: the only package that names the parts that can be swapped."""
