//! How one peer's tunnel does: a machine fed with looks and echoes.
//!
//! Connected means a handshake younger than 180 seconds and an echo that came back. While there is
//! no handshake, or nothing comes back any more, the endpoints are tried in turn.

use std::{net::SocketAddr, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{ObservedPeer, Peer};

/// How long one endpoint is tried: a little less than the 5 seconds between two attempts at a
/// handshake (WireGuard paper, section 6.1: Rekey-Timeout), so that each goes to another one.
pub const TURN: Duration = Duration::from_secs(4);
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
    /// There is a session, and its first echoes are on the way.
    Waiting,
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
    /// How much was received, and since when it is no more.
    received: Option<(u64, Timestamp)>,
    is_silent: bool,
    round_trip: Option<Duration>,
    shown: Option<Duration>,
}

impl Health {
    /// Takes in what the driver says about the peer; `None` when it does not know the peer.
    pub fn handle_look(&mut self, peer: Option<&ObservedPeer>, now: Timestamp) {
        let was_fresh =
            std::mem::replace(&mut self.is_fresh, peer.is_some_and(ObservedPeer::is_fresh));
        if self.is_fresh && !was_fresh {
            self.lost = 0;
        }
        self.is_silent = self.is_fresh && self.is_cut_off(peer, now);
        if self.is_fresh && !self.is_silent {
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

    /// Whether nothing at all came in for as long as one endpoint is tried, echoes included. Where
    /// only echoes are dropped, what else comes in shows that the endpoint is right.
    fn is_cut_off(&mut self, peer: Option<&ObservedPeer>, now: Timestamp) -> bool {
        let received = peer.map_or(0, |peer| peer.received);
        let (_, since) = *self.received.get_or_insert((received, now));
        if self.received.is_none_or(|(known, _)| known != received) {
            self.received = Some((received, now));
            return false;
        }
        let silent = now.duration_since(since);
        let is_long = silent >= SignedDuration::try_from(TURN).unwrap_or_default();
        is_long && !self.has_echo && self.lost >= LOST_LIMIT
    }

    /// Takes in the answer to an echo, `None` when it was lost.
    pub fn handle_echo(&mut self, round_trip: Option<Duration>) {
        if let Some(round_trip) = round_trip {
            // What came back came back through a session.
            (self.is_fresh, self.has_echo, self.lost) = (true, true, 0);
            self.is_silent = false;
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
            (true, false) if self.lost < LOST_LIMIT => Verdict::Waiting,
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

    /// Returns whether the endpoints are tried in turn.
    pub fn is_turning(&self) -> bool {
        self.is_silent || !self.is_fresh
    }

    /// Returns how often it was the turn of another endpoint.
    pub fn turns(&self) -> usize {
        self.turn
    }

    /// Tells the wanted peer which endpoint's turn it is; one that worked once is tried first.
    pub fn advise(&self, peer: &mut Peer) {
        if let Some(roamed) = self.roamed
            && !peer.endpoints.contains(&roamed)
        {
            peer.endpoints.insert(0, roamed);
        }
        peer.turn = self.turn;
        peer.is_silent = self.is_silent;
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
        assert_eq!(health.verdict(), Verdict::Waiting);
        health.handle_echo(Some(Duration::from_millis(1)));
        assert_eq!(health.verdict(), Verdict::Connected);
        health.handle_look(Some(&peer(HANDSHAKE_LIMIT.as_secs())), at(1));
        assert_eq!(health.verdict(), Verdict::NoHandshake);
        health.handle_look(Some(&peer(1)), at(2));
        assert_eq!(
            health.verdict(),
            Verdict::Waiting,
            "an old echo does not count"
        );
    }

    #[test]
    fn echoes_that_were_lost_without_a_session_do_not_count_in_it() {
        let mut health = Health::default();
        health.handle_look(None, at(0));
        for _ in 0..LOST_LIMIT {
            health.handle_echo(None);
        }
        health.handle_look(Some(&peer(1)), at(1));
        for _ in 0..LOST_LIMIT {
            assert_eq!(health.verdict(), Verdict::Waiting);
            health.handle_echo(None);
        }
        assert_eq!(health.verdict(), Verdict::NoEcho);
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
        for (second, expected) in [(0, 0), (3, 0), (4, 1), (7, 1), (8, 2)] {
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
    fn a_young_session_through_which_nothing_comes_tries_the_other_endpoints() {
        let mut health = connected();
        let look = |health: &mut Health, second| {
            let seen = peer(u64::try_from(second).unwrap());
            health.handle_look(Some(&seen), at(second));
            let mut peer = wanted();
            health.advise(&mut peer);
            (peer.is_silent, peer.turn)
        };
        assert_eq!(look(&mut health, 5), (false, 0));
        for _ in 0..LOST_LIMIT {
            health.handle_echo(None);
        }
        assert_eq!(look(&mut health, 10), (true, 0));
        assert_eq!(look(&mut health, 14), (true, 1));
        assert!(health.is_turning());
        health.handle_echo(Some(Duration::from_millis(1)));
        assert_eq!(look(&mut health, 16), (false, 0));
        // Only the echoes are dropped: other packets come in.
        for second in 20..30 {
            health.handle_echo(None);
            let received = u64::try_from(second).unwrap();
            let seen = ObservedPeer {
                received,
                ..peer(received)
            };
            health.handle_look(Some(&seen), at(second));
            assert!(!health.is_turning(), "at {second}");
        }
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
            is_silent: false,
            remote: "10.245.0.0/16".parse().unwrap(),
            local_nat: None,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }
}
