//! The order in which the targets of an SRV record set are tried (RFC 2782).

use super::{Service, TARGETS};

/// Sorts services by priority and, within one priority, picks them by weight. The same seed gives
/// the same order, whatever the order of the answer. At most [`TARGETS`] are returned.
pub fn in_order(services: &[Service], seed: u64) -> Vec<&Service> {
    let mut rest: Vec<&Service> = services.iter().collect();
    // Those of weight 0 come first, so that they are only chosen by the smallest of numbers.
    rest.sort_by_key(|service| {
        (
            service.priority,
            service.weight,
            &service.target,
            service.port,
        )
    });
    rest.dedup_by_key(|service| (service.priority, &service.target, service.port));
    let mut dice = Dice(seed);
    let mut order = Vec::new();
    while let Some(priority) = rest.first().map(|service| service.priority) {
        let group = rest
            .iter()
            .take_while(|service| service.priority == priority);
        let sum: u64 = group.map(|service| u64::from(service.weight)).sum();
        let wanted = dice.roll(sum);
        let mut running = 0;
        let chosen = rest
            .iter()
            .position(|service| {
                running += u64::from(service.weight);
                running >= wanted
            })
            .unwrap_or_default();
        order.push(rest.remove(chosen));
        if order.len() == TARGETS {
            break;
        }
    }
    order
}

/// A sequence of numbers that follows from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    /// Returns a number from 0 to `sum`, both included.
    fn roll(&mut self, sum: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % (sum + 1)
    }
}
