//! How much one address may have under way: a bound before anybody knows who is asking.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts requests under way by address. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    /// `None`: as many as come.
    limit: Option<NonZeroUsize>,
    /// Holds only those who have something under way. Locked for a look-up.
    under_way: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One request under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    pub(crate) fn limited_to(limit: Option<NonZeroUsize>) -> Self {
        Self {
            limit,
            under_way: Arc::default(),
        }
    }

    /// Whoever has no address is not counted; over TCP everybody has one.
    ///
    /// # Errors
    /// When `address` has as much under way as it may.
    pub(crate) fn enter(&self, address: Option<IpAddr>) -> Result<Option<Place>, AddressIsFull> {
        let (Some(limit), Some(address)) = (self.limit, address) else {
            return Ok(None);
        };
        // The same client, whether the listener speaks IPv4 or both.
        let address = address.to_canonical();
        let mut under_way = self.lock();
        let count = under_way.entry(address).or_default();
        if *count >= limit.get() {
            return Err(AddressIsFull { limit });
        }
        *count += 1;
        Ok(Some(Place {
            addresses: self.clone(),
            address,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = self.addresses.lock();
        if let Some(count) = under_way.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.address);
            }
        }
    }
}

/// An address has as much under way as it may. It is told so without the number, which is for whoever set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} (--max-requests-per-address {limit})", Self::TOLD)]
pub(crate) struct AddressIsFull {
    limit: NonZeroUsize,
}

impl AddressIsFull {
    pub(crate) const TOLD: &str = "too many requests from this address are under way";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_limit_to_itself_and_leaves_nothing_behind() {
        let addresses = Addresses::limited_to(NonZeroUsize::new(2));
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "::1".parse().unwrap());
        let first = addresses.enter(Some(a)).unwrap();
        let mapped = addresses.enter(Some("::ffff:10.0.0.1".parse().unwrap()));
        assert_eq!(
            addresses.enter(Some(a)).unwrap_err().to_string(),
            "too many requests from this address are under way (--max-requests-per-address 2)"
        );
        let other = addresses.enter(Some(b)).unwrap();
        drop(first);
        let again = addresses.enter(Some(a)).unwrap();
        drop((mapped, other, again));
        assert!(addresses.lock().is_empty());
    }

    #[test]
    fn without_a_limit_or_an_address_nobody_is_counted() {
        let (limited, open) = (
            Addresses::limited_to(NonZeroUsize::new(1)),
            Addresses::limited_to(None),
        );
        let _held = limited.enter(None).unwrap();
        assert!(limited.enter(None).unwrap().is_none());
        let here = Some(IpAddr::from([127, 0, 0, 1]));
        assert!(open.enter(here).unwrap().is_none());
    }
}
