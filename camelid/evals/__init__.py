"""How good a model is: benchmarks, item by item."""
