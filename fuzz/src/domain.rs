//! What a fuzzer does with its bytes: answers of name servers, and what must hold of every look at them.
#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "each program uses one"
)]

use landbridge::{
    api::{ClusterId, foreign_cluster::DiscoveryType},
    discovery::dns::look_at_recorded,
    engine::{
        addresses::{OwnNetworks, judge},
        domain::{Book, Ground, INSTANCES, TARGETS, Verdict, verdict},
    },
};

/// Takes messages for answers about `fuzz.test`: whatever they say, the look is bounded, nothing
/// that is found must not be dialled, and a person can read what is refused.
pub(crate) fn answers(input: &[u8]) {
    let look = look_at_recorded("fuzz.test", input);
    assert!(look.entries.len() <= INSTANCES);
    let own_id: ClusterId = "rome".parse().unwrap();
    let own = OwnNetworks {
        pod_cidr: "10.244.0.0/16".parse().ok(),
        ..OwnNetworks::default()
    };
    let ground = Ground {
        own_id: &own_id,
        own: &own,
        public_only: input.len() % 2 == 1,
        seed: 7,
    };
    for entry in &look.entries {
        assert!(entry.instance.is_ascii());
        assert!(entry.services.as_ref().map_or(0, Vec::len) <= TARGETS);
        match verdict(entry, &ground) {
            Verdict::Found(claim, endpoints) => {
                assert!(claim.cluster_id.as_ref() != Some(&own_id));
                assert!(!endpoints.is_empty() && endpoints.len() <= 8);
                for endpoint in endpoints {
                    assert_eq!(judge(endpoint, DiscoveryType::Wan, &own), Ok(()));
                }
            }
            Verdict::Refused(why) | Verdict::Unclear(why) => {
                assert!(!why.is_empty() && !why.chars().any(char::is_control));
            }
            Verdict::Ourselves => {}
        }
    }
    let outcome = Book::new("fuzz".to_owned()).handle_look(&look, &ground, 0.5);
    assert!(outcome.wait.as_secs() >= 5 && outcome.wait.as_secs() <= 300);
    assert!(outcome.events.len() <= look.entries.len());
}
