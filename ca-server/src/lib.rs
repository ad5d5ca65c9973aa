//! A certificate authority for service meshes, wire-compatible with Istio.
