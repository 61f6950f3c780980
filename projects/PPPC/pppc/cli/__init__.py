"""The commands of ``pppc``, a module with ``main`` each; tools/ calls them from a checkout."""
