"""DeepInfra as the provider: models, wire, transport and catalogue."""
