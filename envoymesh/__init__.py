"""An Envoy front proxy and a sidecar beside every service, on plain machines, provisioned over SSH."""
