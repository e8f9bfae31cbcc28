//! How many connections the broker takes, together, from one address and in a second: `max.connections`,
//! `max.connections.per.ip` and its overrides, `max.connection.creation.rate` (KIP-612). Shared by all
//! cores, without a lock; knows no socket and no clock.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use crate::config::BrokerConfig;

/// Addresses that are told apart; one that finds no place is not limited by itself.
const PLACES: usize = 1 << 14;

/// Places that are looked at for one address.
const PROBES: usize = 32;

/// The rate counts over so long, in nanoseconds: who came at less than the rate may make up for it.
const RATE_WINDOW_NS: u64 = 10_000_000_000;

/// One address that was seen.
#[derive(Default)]
struct Place {
    /// Of the address; zero: nobody's yet. It is never given up.
    hash: AtomicU64,
    count: AtomicUsize,
}

/// The connections of a broker, counted.
pub struct ConnectionLimits {
    count_max: usize,
    count: AtomicUsize,
    /// New connections a second; it changes while the broker runs.
    rate_max: AtomicU64,
    /// When the connections so far would have come at just the rate, in nanoseconds.
    paced_ns: AtomicU64,
    per_ip_max: usize,
    overrides: HashMap<IpAddr, usize>,
    /// None where no address is limited.
    places: Vec<Place>,
}

impl ConnectionLimits {
    /// The limits of a configuration. Hosts that the overrides name are resolved now; one that cannot
    /// be is left out with a warning.
    pub fn new(broker: &BrokerConfig) -> ConnectionLimits {
        let mut overrides = HashMap::new();
        for (host, most) in &broker.connections_per_ip_overrides {
            match (host.as_str(), 0).to_socket_addrs() {
                Ok(addresses) => {
                    let ips = addresses.map(|address| address.ip().to_canonical());
                    overrides.extend(ips.map(|ip| (ip, count(*most))));
                }
                Err(error) => {
                    tracing::warn!(host, %error, "max.connections.per.ip.overrides: no such host");
                }
            }
        }
        let per_ip = broker.connections_per_ip_max != i32::MAX || !overrides.is_empty();
        ConnectionLimits {
            count_max: count(broker.connections_max),
            count: AtomicUsize::new(0),
            rate_max: AtomicU64::new(rate(broker.connection_creation_rate_max)),
            paced_ns: AtomicU64::new(0),
            per_ip_max: count(broker.connections_per_ip_max),
            overrides,
            places: std::iter::repeat_with(Place::default)
                .take(if per_ip { PLACES } else { 0 })
                .collect(),
        }
    }

    /// Counts a connection that is to be served; false when there are as many as may be, or when it
    /// comes too soon: then it is to ask again later.
    pub fn enter(&self, now_us: u64) -> bool {
        let enters = enter(&self.count, self.count_max);
        if enters && !self.keeps_pace(now_us) {
            self.leave();
            return false;
        }
        enters
    }

    /// Sets `max.connection.creation.rate`, in connections a second.
    pub fn set_rate(&self, rate_max: i32) {
        self.rate_max.store(rate(rate_max), Ordering::Relaxed);
    }

    fn keeps_pace(&self, now_us: u64) -> bool {
        let rate_max = self.rate_max.load(Ordering::Relaxed);
        if rate_max == rate(i32::MAX) {
            return true;
        }
        let Some(each_ns) = 1_000_000_000u64.checked_div(rate_max) else {
            return false;
        };
        let now_ns = now_us.saturating_mul(1_000);
        let earliest_ns = now_ns.saturating_sub(RATE_WINDOW_NS);
        self.paced_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paced_ns| {
                let next_ns = paced_ns.max(earliest_ns) + each_ns;
                (next_ns <= now_ns).then_some(next_ns)
            })
            .is_ok()
    }

    /// A served connection is gone.
    pub fn leave(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a connection from an address; false when it has as many as it may.
    pub fn enter_ip(&self, ip: IpAddr) -> bool {
        let most = self
            .overrides
            .get(&ip.to_canonical())
            .copied()
            .unwrap_or(self.per_ip_max);
        self.place(ip).is_none_or(|place| enter(&place.count, most))
    }

    /// A connection from an address is gone.
    pub fn leave_ip(&self, ip: IpAddr) {
        if let Some(place) = self.place(ip) {
            place.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn place(&self, ip: IpAddr) -> Option<&Place> {
        let hash = match ip.to_canonical() {
            IpAddr::V4(v4) => xxh3_64(&v4.octets()),
            IpAddr::V6(v6) => xxh3_64(&v6.octets()),
        }
        .max(1);
        // Places are never given up, so an address that has one finds it again; one that has none
        // finds none later either, and what was not counted is not subtracted.
        let first = usize::try_from(hash % PLACES as u64).unwrap_or(0);
        (0..PROBES.min(self.places.len())).find_map(|probe| {
            let place = &self.places[(first + probe) % PLACES];
            let owner = place
                .hash
                .compare_exchange(0, hash, Ordering::Relaxed, Ordering::Relaxed)
                .map_or_else(|owner| owner, |_| hash);
            (owner == hash).then_some(place)
        })
    }
}

fn count(config: i32) -> usize {
    usize::try_from(config).unwrap_or(0)
}

fn rate(config: i32) -> u64 {
    u64::try_from(config).unwrap_or(0)
}

fn enter(count: &AtomicUsize, most: usize) -> bool {
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            (now < most).then_some(now + 1)
        })
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(overrides: &[&str]) -> ConnectionLimits {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let (broker, _) = BrokerConfig::read(None, &overrides).expect("a good configuration");
        ConnectionLimits::new(&broker)
    }

    #[test]
    fn nothing_is_limited_unless_asked_for() {
        let limits = limits(&[]);
        let ip: IpAddr = "10.0.0.1".parse().expect("an address");
        for _ in 0..10_000 {
            assert!(limits.enter(0) && limits.enter_ip(ip));
        }
        limits.leave_ip(ip);
    }

    #[test]
    fn the_whole_broker_has_a_bound() {
        let limits = limits(&["max.connections=2"]);
        assert!(limits.enter(0) && limits.enter(0) && !limits.enter(0));
        limits.leave();
        assert!(limits.enter(0) && !limits.enter(0));
    }

    #[test]
    fn the_rate_holds_over_ten_seconds_and_changes_at_run_time() {
        let limits = limits(&["max.connection.creation.rate=5"]);
        let start_us = 100_000_000;
        let count = |at_us| (0..1000).filter(|_| limits.enter(at_us)).count();
        assert_eq!(count(start_us), 50, "what ten seconds allow");
        assert_eq!(count(start_us + 199_999), 0);
        assert_eq!(count(start_us + 1_000_000), 5);
        assert_eq!(count(start_us + 100_000_000), 50, "no more is saved up");
        limits.set_rate(10);
        assert_eq!(count(start_us + 101_000_000), 10);
        limits.set_rate(0);
        assert_eq!(count(start_us + 900_000_000), 0);
        limits.set_rate(i32::MAX);
        assert_eq!(count(start_us + 900_000_000), 1000);
    }

    #[test]
    fn who_comes_too_soon_is_not_counted() {
        let limits = limits(&["max.connection.creation.rate=1", "max.connections=12"]);
        let start_us = 100_000_000;
        let tries = |at_us| (0..100).filter(|_| limits.enter(at_us)).count();
        assert_eq!(tries(start_us), 10);
        assert_eq!(
            tries(start_us + 60_000_000),
            2,
            "then max.connections holds"
        );
    }

    #[test]
    fn each_address_has_a_bound_of_its_own() {
        let limits = limits(&[
            "max.connections.per.ip=1",
            "max.connections.per.ip.overrides=10.0.0.2:2,10.0.0.3:0",
        ]);
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(limits.enter_ip(ip("10.0.0.1")) && !limits.enter_ip(ip("10.0.0.1")));
        assert!(
            !limits.enter_ip(ip("::ffff:10.0.0.1")),
            "the same address, written otherwise"
        );
        assert!(limits.enter_ip(ip("10.0.0.2")) && limits.enter_ip(ip("10.0.0.2")));
        assert!(!limits.enter_ip(ip("10.0.0.2")));
        assert!(!limits.enter_ip(ip("10.0.0.3")));
        limits.leave_ip(ip("10.0.0.1"));
        assert!(limits.enter_ip(ip("10.0.0.1")));
    }
}
