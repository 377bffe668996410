//! Who is trusted, who is let in, and who is joined without being told.

use crate::{
    api::{
        cluster_config::DiscoveryConfig,
        foreign_cluster::{DiscoveryType, ForeignClusterSpec, IncomingPeering, TrustMode},
        identity::Fingerprint,
        labels::reason,
        search_domain::{SearchDomainSpec, TrustedBy},
    },
    engine::sighting::Voucher,
};

/// What a cluster has shown besides its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// It knows the fleet secret.
    FleetSecret,
    /// It knows a token that this cluster gave out, or the one that it gave us.
    Token,
    /// A domain that is trusted so has its key in a TLSA record that DNSSEC proves.
    Tlsa,
    /// It holds a certificate for its name in a domain that is trusted so.
    WebPki,
}

impl Evidence {
    /// Returns the reason that condition Trusted carries.
    pub fn reason(self) -> &'static str {
        match self {
            Self::FleetSecret => reason::FLEET_SECRET,
            Self::Token => reason::TOKEN,
            Self::Tlsa => reason::TLSA,
            Self::WebPki => reason::WEB_PKI,
        }
    }
}

/// A decision about a cluster, with its reason (a constant of [`reason`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Its identity is accepted.
    Accepted(String),
    /// A person has to decide.
    Waiting,
    /// It is blocked.
    Refused,
}

impl Trust {
    /// Tells whether the identity is accepted.
    pub fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted(_))
    }
}

/// Decides whether the identity behind a ForeignCluster is accepted.
///
/// `recorded` is by what a Trusted cluster was let in, so that a peer that the fleet secret let in
/// does not turn into one that a person approved.
pub fn trust(
    spec: &ForeignClusterSpec,
    recorded: Option<&str>,
    evidence: Option<Evidence>,
    allow_empty_token: bool,
) -> Trust {
    if spec.is_denied() {
        return Trust::Refused;
    }
    if spec.trust_mode == TrustMode::Trusted {
        return Trust::Accepted(recorded.unwrap_or(reason::PINNED).to_owned());
    }
    if let Some(evidence) = evidence {
        return Trust::Accepted(evidence.reason().to_owned());
    }
    if allow_empty_token {
        return Trust::Accepted(reason::EMPTY_TOKEN_ALLOWED.to_owned());
    }
    Trust::Waiting
}

/// Decides whether a cluster may consume what we offer. Nobody may for whom all is held back: its
/// object is being deleted, or our identity is on two machines. That is no refusal: once it is over
/// the cluster may be found anew.
pub fn admit(spec: &ForeignClusterSpec, allow_empty_token: bool, is_held_back: bool) -> Trust {
    if is_held_back {
        return Trust::Waiting;
    }
    let trust = trust(spec, None, None, allow_empty_token);
    if trust == Trust::Waiting && spec.incoming_peering_enabled == IncomingPeering::Yes {
        return Trust::Accepted(reason::PINNED.to_owned());
    }
    trust
}

/// Decides whether the signed records of a SearchDomain let in whoever holds a key.
pub fn vouched(domain: &SearchDomainSpec, voucher: &Voucher, key: &Fingerprint) -> bool {
    domain.trusted_by.contains(&TrustedBy::Tlsa)
        && is_within(&voucher.host, &domain.domain)
        && voucher.keys.contains(key)
}

/// Decides whether a certificate for the host lets a cluster of a SearchDomain in.
pub fn certifiable(domain: &SearchDomainSpec, voucher: &Voucher) -> bool {
    domain.trusted_by.contains(&TrustedBy::WebPki) && is_within(&voucher.host, &domain.domain)
}

/// Whether a host is a domain's own. What leads elsewhere was not decided there: without DNSSEC
/// whoever answers in its place could name a host of his own, with a signed zone and a certificate.
fn is_within(host: &str, domain: &str) -> bool {
    let domain = domain.trim_end_matches('.').to_ascii_lowercase();
    // An escaped character may be a dot inside of a label.
    if domain.is_empty() || host.contains('\\') {
        return false;
    }
    host.strip_suffix(&domain)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Decides `spec.join` of a ForeignCluster that discovery creates (Liqo's two switches).
pub fn autojoin(config: &DiscoveryConfig, trusted: bool) -> bool {
    config.autojoin && (trusted || config.autojoin_untrusted)
}

/// Tells whether a find of `found` takes over an object that `present` made.
///
/// A person's object stays a person's; a LAN is nearer than a domain; a cluster that came to us
/// is taken over by whatever finds it.
pub fn takes_over(found: DiscoveryType, present: DiscoveryType) -> bool {
    fn rank(source: DiscoveryType) -> u8 {
        match source {
            DiscoveryType::Manual => 3,
            DiscoveryType::Lan => 2,
            DiscoveryType::Wan => 1,
            DiscoveryType::IncomingPeering => 0,
        }
    }
    rank(found) > rank(present) && found != DiscoveryType::Manual
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ClusterConfigSpec;

    fn spec(trust_mode: TrustMode, incoming: IncomingPeering) -> ForeignClusterSpec {
        ForeignClusterSpec {
            trust_mode,
            incoming_peering_enabled: incoming,
            ..ForeignClusterSpec::default()
        }
    }

    #[test]
    fn every_way_to_be_trusted_has_its_reason() {
        use Evidence::{FleetSecret, Tlsa, Token, WebPki};
        use IncomingPeering::{Auto, No, Yes};
        use TrustMode::{Trusted, Unknown, Untrusted};
        let accepted = |reason: &str| Trust::Accepted(reason.to_owned());
        let table = [
            (Unknown, Auto, None, false, Trust::Waiting),
            (Untrusted, Auto, None, false, Trust::Waiting),
            (Untrusted, Yes, None, false, Trust::Waiting),
            (Trusted, Auto, None, false, accepted("Pinned")),
            (
                Untrusted,
                Auto,
                Some(FleetSecret),
                false,
                accepted("FleetSecret"),
            ),
            (Untrusted, Auto, Some(Token), true, accepted("Token")),
            (Untrusted, Auto, Some(Tlsa), false, accepted("TLSA")),
            (Unknown, Auto, Some(WebPki), true, accepted("WebPKI")),
            (Untrusted, Auto, None, true, accepted("EmptyTokenAllowed")),
            (Trusted, No, Some(FleetSecret), true, Trust::Refused),
            (Untrusted, No, Some(Token), true, Trust::Refused),
            (Untrusted, No, Some(Tlsa), false, Trust::Refused),
            (Trusted, No, Some(WebPki), false, Trust::Refused),
        ];
        for (mode, incoming, evidence, empty, expected) in table {
            let decision = trust(&spec(mode, incoming), None, evidence, empty);
            assert_eq!(
                decision, expected,
                "{mode:?} {incoming:?} {evidence:?} {empty}"
            );
        }
    }

    /// By what a domain is trusted, it, the host, the keys vouched for, and what lets rome in.
    const VOUCHERS: [[&str; 5]; 14] = [
        ["TLSA", "a.test", "rome.a.test", "rome", "TLSA"],
        ["WebPKI", "a.test", "rome.a.test", "rome", "WebPKI"],
        [
            "TLSA WebPKI",
            "a.test",
            "rome.a.test",
            "rome",
            "TLSA WebPKI",
        ],
        ["", "a.test", "rome.a.test", "rome", ""],
        ["TLSA", "a.test", "rome.a.test", "milan rome", "TLSA"],
        ["TLSA WebPKI", "a.test", "rome.a.test", "milan", "WebPKI"],
        ["TLSA WebPKI", "a.test", "rome.a.test", "", "WebPKI"],
        [
            "TLSA WebPKI",
            "A.Test.",
            "rome.a.test",
            "rome",
            "TLSA WebPKI",
        ],
        ["TLSA WebPKI", "a.test", "a.test", "rome", "TLSA WebPKI"],
        ["TLSA WebPKI", "a.test", "rome.b.test", "rome", ""],
        ["TLSA WebPKI", "a.test", "roma.test", "rome", ""],
        ["TLSA WebPKI", "a.test", "test", "rome", ""],
        ["TLSA WebPKI", "a.test", "x\\.a.test", "rome", ""],
        ["TLSA WebPKI", ".", "rome.a.test", "rome", ""],
    ];

    #[test]
    fn a_domain_vouches_for_its_own_hosts_and_where_it_is_asked_to() {
        let fingerprint = |name: &str| Fingerprint::from_spki(name.as_bytes());
        for row in VOUCHERS {
            let [trusted_by, name, host, keys, expected] = row;
            let trusted_by = trusted_by.split_whitespace().map(|way| match way {
                "TLSA" => TrustedBy::Tlsa,
                _ => TrustedBy::WebPki,
            });
            let domain = SearchDomainSpec {
                domain: name.to_owned(),
                trusted_by: trusted_by.collect(),
                ..SearchDomainSpec::default()
            };
            let voucher = Voucher {
                search_domain: "one".to_owned(),
                host: host.to_owned(),
                keys: keys.split_whitespace().map(fingerprint).collect(),
            };
            let by_key = vouched(&domain, &voucher, &fingerprint("rome"));
            assert_eq!(by_key, expected.contains("TLSA"), "{row:?}");
            let by_certificate = certifiable(&domain, &voucher);
            assert_eq!(by_certificate, expected.contains("WebPKI"), "{row:?}");
        }
    }

    #[test]
    fn the_reason_that_let_a_peer_in_is_kept() {
        let spec = spec(TrustMode::Trusted, IncomingPeering::Auto);
        let decision = trust(&spec, Some("FleetSecret"), None, false);
        assert_eq!(decision, Trust::Accepted("FleetSecret".into()));
    }

    #[test]
    fn a_person_may_admit_a_cluster_without_trusting_it() {
        let yes = spec(TrustMode::Untrusted, IncomingPeering::Yes);
        assert!(admit(&yes, false, false).is_accepted());
        assert_eq!(admit(&yes, true, true), Trust::Waiting);
        let auto = spec(TrustMode::Untrusted, IncomingPeering::Auto);
        assert_eq!(admit(&auto, false, false), Trust::Waiting);
        assert!(admit(&auto, true, false).is_accepted());
        let no = spec(TrustMode::Trusted, IncomingPeering::No);
        assert_eq!(admit(&no, true, false), Trust::Refused);
    }

    #[test]
    fn both_switches_of_liqo_decide_the_join() {
        let mut config = ClusterConfigSpec::default().discovery_config;
        assert!(autojoin(&config, false));
        config.autojoin_untrusted = false;
        assert!(!autojoin(&config, false));
        assert!(autojoin(&config, true));
        config.autojoin = false;
        assert!(!autojoin(&config, true));
    }

    #[test]
    fn the_lan_takes_over_what_came_to_us_and_never_what_a_person_wrote() {
        use DiscoveryType::{IncomingPeering, Lan, Manual, Wan};
        assert!(takes_over(Lan, IncomingPeering));
        assert!(takes_over(Lan, Wan));
        assert!(!takes_over(Wan, Lan));
        assert!(!takes_over(Lan, Manual));
        assert!(!takes_over(Lan, Lan));
    }
}
