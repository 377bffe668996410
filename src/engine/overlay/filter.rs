//! The packet rules of the tunnel as text for `nft -f -`.
//!
//! One table holds them all, so that removing it removes everything. Chains, in the order in which
//! a packet meets them: `guard` drops what no peer may send, `incoming` turns the range under which
//! a peer sees us into our own, `clamp` keeps TCP segments within the MTU, `forward` drops what others
//! than our pods send through this machine, `outgoing` turns our own range, and the addresses of this
//! machine itself, into the range under which the peer sees us.

use std::fmt::Write as _;

use super::{Overlay, first_host};

/// The table, in the family `inet`.
pub const TABLE: &str = "landbridge";
/// An empty chain of this name and a hash says which rules are in place: nft prints rules back in
/// another spelling, so that texts cannot be compared.
const MARK: &str = "mark_";

/// The rules, and how to know them again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// The text for `nft -f -`; it replaces the table at once.
    pub text: String,
    /// What is seen when exactly these rules are in place.
    pub state: FilterState,
}

/// Which rules are in place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilterState {
    /// The name of the marking chain.
    pub mark: String,
    /// The number of rules, since a flushed chain leaves the mark.
    pub rules: usize,
}

impl FilterState {
    /// What is not known: rules that are none of ours, so that they are replaced or removed.
    pub fn unknown() -> Self {
        Self {
            mark: String::new(),
            rules: 0,
        }
    }

    /// Returns whether a chain of this name is a mark.
    pub fn is_mark(chain: &str) -> bool {
        chain.starts_with(MARK)
    }
}

impl Ruleset {
    /// Renders the rules of an overlay.
    pub fn of(overlay: &Overlay) -> Self {
        let mut rules = Rules::default();
        rules.render(overlay);
        let digest = ring::digest::digest(&ring::digest::SHA256, rules.body.as_bytes());
        let mut mark = String::from(MARK);
        for byte in digest.as_ref().iter().take(8) {
            write!(mark, "{byte:02x}").expect("writing to a string cannot fail");
        }
        let text = format!(
            "table inet {TABLE} {{}}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n{}  chain {mark} {{\n  }}\n}}\n",
            rules.body
        );
        let state = FilterState {
            mark,
            rules: rules.count,
        };
        Self { text, state }
    }
}

#[derive(Default)]
struct Rules {
    body: String,
    count: usize,
}

impl Rules {
    fn render(&mut self, overlay: &Overlay) {
        let (name, local) = (&overlay.interface, overlay.local);
        self.chain("guard", "type filter hook prerouting priority raw");
        for peer in overlay.peers.values() {
            let (remote, presented) = (peer.remote, peer.presented(local));
            self.rule(&format!(
                "iifname \"{name}\" ip saddr {remote} ip daddr {presented} counter accept"
            ));
        }
        self.rule(&format!("iifname \"{name}\" counter drop"));
        self.end();

        // Of the chains of one priority the one made last is asked first, and the first to map an address
        // has its way: a CNI that starts after us would masquerade what goes to the peers.
        self.chain("incoming", "type nat hook prerouting priority dstnat - 1");
        for peer in overlay.peers.values() {
            if let (remote, Some(nat)) = (peer.remote, peer.local_nat) {
                self.rule(&format!(
                    "iifname \"{name}\" ip saddr {remote} ip daddr {nat} counter dnat ip prefix to ip daddr map {{ {nat} : {local} }}"
                ));
            }
        }
        self.end();

        self.chain("outgoing", "type nat hook postrouting priority srcnat - 1");
        for peer in overlay.peers.values() {
            let remote = peer.remote;
            if let Some(nat) = peer.local_nat {
                self.rule(&format!(
                    "oifname \"{name}\" ip saddr {local} ip daddr {remote} counter snat ip prefix to {nat}"
                ));
            }
            // A node's own address means nothing to the peer; Liqo does the same.
            let first = first_host(peer.presented(local));
            self.rule(&format!(
                "oifname \"{name}\" ip saddr != {local} ip daddr {remote} counter snat ip to {first}"
            ));
        }
        self.end();

        // Whoever takes this machine for a router would reach the peer in our name.
        self.chain("forward", "type filter hook forward priority filter");
        self.rule(&format!(
            "oifname \"{name}\" ip saddr != {local} ct state new,invalid,untracked counter drop"
        ));
        self.end();

        self.chain("clamp", "type filter hook forward priority mangle");
        for direction in ["oifname", "iifname"] {
            self.rule(&format!(
                "{direction} \"{name}\" tcp flags & (syn|rst) == syn tcp option maxseg size set rt mtu"
            ));
        }
        self.end();
    }

    fn chain(&mut self, name: &str, hook: &str) {
        writeln!(self.body, "  chain {name} {{\n    {hook}; policy accept;")
            .expect("writing to a string cannot fail");
    }

    fn rule(&mut self, rule: &str) {
        writeln!(self.body, "    {rule}").expect("writing to a string cannot fail");
        self.count += 1;
    }

    fn end(&mut self) {
        self.body.push_str("  }\n");
    }
}
