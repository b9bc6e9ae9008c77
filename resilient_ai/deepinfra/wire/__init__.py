"""DeepInfra's JSON and the core's values, turned into each other: pure functions, one file per endpoint, no input or output."""
