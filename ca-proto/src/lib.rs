//! Wire types of the Istio certificate service and of Envoy secret discovery.
