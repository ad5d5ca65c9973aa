//! A small certificate agent that serves Envoy over SDS.
