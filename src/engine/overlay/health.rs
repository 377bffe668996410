//! How one peer's tunnel does: a machine fed with looks and echoes.
//!
//! Connected means a handshake younger than 180 seconds and an echo that came back. While there is
//! no handshake, the endpoints are tried in turn.

use std::{net::SocketAddr, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{ObservedPeer, Peer};

/// How long one endpoint is tried (WireGuard paper, section 6.1: Rekey-Timeout).
pub const TURN: Duration = Duration::from_secs(5);
/// How many echoes in a row may be lost before the tunnel counts as down.
pub const LOST_LIMIT: u32 = 3;
/// Between two echoes through a tunnel that works.
pub const CONNECTED_INTERVAL: Duration = Duration::from_secs(5);
/// Between two echoes through a tunnel that does not.
pub const CONNECTING_INTERVAL: Duration = Duration::from_secs(2);
/// Between two of the first echoes, when most tunnels come up.
pub const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// How many echoes are the first ones.
const FIRST: u32 = 10;
/// Below this a change of the round-trip time is noise to a person.
const NOISE: Duration = Duration::from_millis(1);

/// What a person should know about a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The handshake is fresh and echoes come back.
    Connected,
    /// Nobody answered the handshake.
    NoHandshake,
    /// There is a session, and no echo comes back through it.
    NoEcho,
}

/// How one peer's tunnel does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    turn: usize,
    turned: Option<Timestamp>,
    roamed: Option<SocketAddr>,
    is_fresh: bool,
    has_echo: bool,
    lost: u32,
    round_trip: Option<Duration>,
    shown: Option<Duration>,
}

impl Health {
    /// Takes in what the driver says about the peer; `None` when it does not know the peer.
    pub fn handle_look(&mut self, peer: Option<&ObservedPeer>, now: Timestamp) {
        self.is_fresh = peer.is_some_and(ObservedPeer::is_fresh);
        if self.is_fresh {
            self.roamed = peer.and_then(|peer| peer.endpoint);
            self.turned = None;
            self.turn = 0;
            return;
        }
        self.has_echo = false;
        let Some(turned) = self.turned else {
            self.turned = Some(now);
            return;
        };
        let elapsed = now.duration_since(turned);
        // A clock that was set back would otherwise stop the turns.
        if elapsed >= SignedDuration::try_from(TURN).unwrap_or_default() || elapsed.is_negative() {
            self.turned = Some(now);
            self.turn = self.turn.wrapping_add(1);
        }
    }

    /// Takes in the answer to an echo, `None` when it was lost.
    pub fn handle_echo(&mut self, round_trip: Option<Duration>) {
        if let Some(round_trip) = round_trip {
            // What came back came back through a session.
            (self.is_fresh, self.has_echo, self.lost) = (true, true, 0);
            self.round_trip = Some(round_trip);
            return;
        }
        self.lost = self.lost.saturating_add(1);
        if self.lost >= LOST_LIMIT {
            self.has_echo = false;
        }
    }

    /// Returns how the tunnel does.
    pub fn verdict(&self) -> Verdict {
        match (self.is_fresh, self.has_echo) {
            (true, true) => Verdict::Connected,
            (true, false) => Verdict::NoEcho,
            (false, _) => Verdict::NoHandshake,
        }
    }

    /// Returns how long to wait between two echoes.
    pub fn interval(&self) -> Duration {
        if self.verdict() == Verdict::Connected {
            CONNECTED_INTERVAL
        } else if self.lost < FIRST {
            FIRST_INTERVAL
        } else {
            CONNECTING_INTERVAL
        }
    }

    /// Tells the wanted peer which endpoint's turn it is; one that worked once is tried first.
    pub fn advise(&self, peer: &mut Peer) {
        if let Some(roamed) = self.roamed
            && !peer.endpoints.contains(&roamed)
        {
            peer.endpoints.insert(0, roamed);
        }
        peer.turn = self.turn;
    }

    /// Returns the last round-trip time.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Returns the round-trip time to show, which changes only when a person would care.
    pub fn poll_shown(&mut self) -> Option<Duration> {
        if self.verdict() != Verdict::Connected {
            self.shown = None;
            return None;
        }
        let now = self.round_trip?;
        let is_news = self.shown.is_none_or(|shown| {
            let (less, more) = (shown.min(now), shown.max(now));
            more > less.saturating_mul(2) && more.abs_diff(less) > NOISE
        });
        if is_news {
            self.shown = Some(now);
        }
        self.shown
    }
}

/// Writes a round-trip time as people do.
pub fn show(round_trip: Duration) -> String {
    let milliseconds = round_trip.as_secs_f64() * 1000.0;
    if milliseconds < 10.0 {
        format!("{milliseconds:.1} ms")
    } else {
        format!("{milliseconds:.0} ms")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::engine::overlay::{HANDSHAKE_LIMIT, PublicKey};

    #[test]
    fn connected_needs_a_handshake_and_an_echo() {
        let mut health = Health::default();
        assert_eq!(health.verdict(), Verdict::NoHandshake);
        health.handle_look(Some(&peer(1)), at(0));
        assert_eq!(health.verdict(), Verdict::NoEcho);
        health.handle_echo(Some(Duration::from_millis(1)));
        assert_eq!(health.verdict(), Verdict::Connected);
        health.handle_look(Some(&peer(HANDSHAKE_LIMIT.as_secs())), at(1));
        assert_eq!(health.verdict(), Verdict::NoHandshake);
        health.handle_look(Some(&peer(1)), at(2));
        assert_eq!(
            health.verdict(),
            Verdict::NoEcho,
            "an old echo does not count"
        );
    }

    #[test]
    fn one_lost_echo_is_forgiven_and_the_third_is_not() {
        let mut health = connected();
        health.handle_echo(None);
        health.handle_echo(None);
        assert_eq!(health.verdict(), Verdict::Connected);
        health.handle_echo(None);
        assert_eq!(health.verdict(), Verdict::NoEcho);
        assert_eq!(health.interval(), FIRST_INTERVAL);
        health.handle_echo(Some(Duration::from_millis(1)));
        assert_eq!(health.verdict(), Verdict::Connected);
        assert_eq!(health.interval(), CONNECTED_INTERVAL);
    }

    #[test]
    fn endpoints_take_turns_only_while_nobody_answers() {
        let mut health = Health::default();
        let turn = |health: &Health| {
            let mut peer = wanted();
            health.advise(&mut peer);
            peer.turn
        };
        for (second, expected) in [(0, 0), (4, 0), (5, 1), (9, 1), (10, 2)] {
            health.handle_look(None, at(second));
            assert_eq!(turn(&health), expected, "at {second}");
        }
        health.handle_look(Some(&peer(1)), at(11));
        health.handle_look(Some(&peer(1)), at(60));
        assert_eq!(turn(&health), 0);
        // The clock is set back.
        health.handle_look(None, at(60));
        health.handle_look(None, at(10));
        assert_eq!(turn(&health), 1);
    }

    #[test]
    fn the_address_that_a_peer_roamed_to_is_tried_first() {
        let mut health = connected();
        health.handle_look(None, at(1));
        let mut peer = wanted();
        health.advise(&mut peer);
        assert_eq!(peer.endpoints.len(), 2);
        assert_eq!(peer.endpoint(), Some("203.0.113.9:4000".parse().unwrap()));
    }

    #[test]
    fn a_round_trip_time_is_shown_anew_only_when_it_matters() {
        let mut health = connected();
        let mut shown = |micros: u64| {
            health.handle_echo(Some(Duration::from_micros(micros)));
            show(health.poll_shown().unwrap())
        };
        assert_eq!(shown(400), "0.4 ms");
        assert_eq!(shown(1300), "0.4 ms");
        assert_eq!(shown(2400), "2.4 ms");
        assert_eq!(shown(4000), "2.4 ms");
        assert_eq!(shown(25_400), "25 ms");
        assert_eq!(shown(14_000), "25 ms");
        assert_eq!(shown(400), "0.4 ms");
    }

    fn connected() -> Health {
        let mut health = Health::default();
        health.handle_look(Some(&peer(1)), at(0));
        health.handle_echo(Some(Duration::from_micros(400)));
        health
    }

    fn peer(age: u64) -> ObservedPeer {
        ObservedPeer {
            allowed: BTreeSet::new(),
            presented: "10.244.0.0/16".parse().unwrap(),
            endpoint: Some("203.0.113.9:4000".parse().unwrap()),
            handshake_age: Some(Duration::from_secs(age)),
            received: 0,
            sent: 0,
        }
    }

    fn wanted() -> Peer {
        Peer {
            public_key: PublicKey::new([2; 32]),
            endpoints: vec!["192.168.1.2:5871".parse().unwrap()],
            turn: 0,
            remote: "10.245.0.0/16".parse().unwrap(),
            local_nat: None,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }
}
