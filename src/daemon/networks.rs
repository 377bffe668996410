//! The networks that this machine is on, followed as they change.

use std::{collections::BTreeSet, time::Duration};

use ipnet::{IpNet, Ipv4Net};
use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    discovery::interfaces::{InterfaceRules, subnet_of},
    engine::{addresses::OwnNetworks, overlay::INTERFACE},
};

/// How often the interfaces are read. Reading them takes microseconds; what depends on them must
/// be right within a second of a change.
const INTERVAL: Duration = Duration::from_millis(500);

/// What is known about this machine's networks.
#[derive(Debug, Clone)]
pub(super) struct Networks {
    /// For the judgement of addresses that are to be dialled.
    pub(super) own: watch::Receiver<OwnNetworks>,
    /// For the choice of ranges under which peers are seen.
    pub(super) ranges: watch::Receiver<BTreeSet<Ipv4Net>>,
}

/// Follows the interfaces.
#[derive(Debug)]
pub(super) struct Follower {
    base: OwnNetworks,
    rules: InterfaceRules,
    own: watch::Sender<OwnNetworks>,
    ranges: watch::Sender<BTreeSet<Ipv4Net>>,
}

impl Follower {
    /// Reads the interfaces once. `base` holds what does not come from them.
    pub(super) fn new(base: OwnNetworks, rules: InterfaceRules) -> (Self, Networks) {
        let (own, own_receiver) = watch::channel(base.clone());
        let (ranges, ranges_receiver) = watch::channel(BTreeSet::new());
        let follower = Self {
            base,
            rules,
            own,
            ranges,
        };
        follower.look();
        (
            follower,
            Networks {
                own: own_receiver,
                ranges: ranges_receiver,
            },
        )
    }

    /// Follows the interfaces until the shutdown.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => self.look(),
            }
        }
    }

    fn look(&self) {
        let mut own = self.base.clone();
        let mut ranges = BTreeSet::new();
        let Ok(rows) = getifaddrs() else {
            return;
        };
        for row in rows.filter(|row| row.interface_name != INTERFACE) {
            let Some(subnet) = subnet_of(row.address.as_ref(), row.netmask.as_ref()) else {
                continue;
            };
            own.addresses.push(subnet.addr());
            if row.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
                continue;
            }
            if let IpNet::V4(range) = subnet {
                ranges.insert(range.trunc());
            }
            if self.rules.allows(&row.interface_name, subnet.addr()) {
                own.on_link.push(subnet.trunc());
            }
        }
        replace(&self.own, own);
        replace(&self.ranges, ranges);
    }
}

fn replace<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|present| {
        let changed = *present != value;
        *present = value;
        changed
    });
}
