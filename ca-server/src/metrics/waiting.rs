//! What a scrape gets while there is nothing to sign with: that is when somebody should be told.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::parts::readiness;

/// The Prometheus text format.
pub(crate) fn before_there_is_a_ca() -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(NotReady));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct NotReady;

impl Collector for NotReady {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        readiness(&mut encoder, false)
    }
}
