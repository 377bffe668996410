//! One life of discovery on the LAN: from its sockets until shutdown or until they break.

mod asking;
mod hearing;
mod lines;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::StreamExt;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    Mdns, fraction,
    link_events::link_events,
    neighbours::Neighbours,
    responder::{self, Responder},
    socket::Sockets,
    wire::SIZE_LIMIT,
};
use crate::discovery::{
    DiscoveryError,
    interfaces::{InterfaceRules, Links},
    source::{Announcement, EventSink},
};
use asking::Asking;
use lines::{Anew, Line};

/// When an announcement is repeated. The times grow by a factor of at least two (RFC 6762, section
/// 8.3) and are spread by a fifth.
const REPEATED_ANNOUNCEMENTS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(9),
    Duration::from_secs(27),
];
/// The least time between two announcements (RFC 6762, section 6).
const ANNOUNCEMENT_PAUSE: Duration = Duration::from_secs(1);
/// The waits between two questions for everybody double from one to the other (RFC 6762, section
/// 5.2).
const BROWSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));
/// How often the links are looked at besides.
const CHECK: Duration = Duration::from_secs(5);
/// How long after the first goodbye the second one follows.
const SECOND_GOODBYE: Duration = Duration::from_millis(120);

/// Runs until shutdown, or until the sockets have to be opened anew.
pub(super) async fn run(
    source: &mut Mdns,
    events: &EventSink,
    shutdown: &CancellationToken,
) -> Result<(), DiscoveryError> {
    let mut session = Session::start(source, events).await?;
    let mut link_events = link_events();
    let mut buffer = vec![0; SIZE_LIMIT + 1];
    loop {
        let next = session.next_timer();
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = source.announcement.changed() => {
                if changed.is_err() {
                    // Nobody is left who could want us to go on.
                    shutdown.cancelled().await;
                    break;
                }
                let announcement = source.announcement.borrow_and_update().clone();
                session.follow(announcement).await?;
                source.set_health(session.health());
            }
            Ok(()) = source.known.changed() => {
                let known = source.known.borrow_and_update().clone();
                session.neighbours.set_known(known);
            }
            Some(()) = link_events.next() => session.note_link_event(),
            Some(instance) = source.verify.recv() => session.verify(&instance),
            received = session.receive(&mut buffer) => session.take(received?.as_ref(), &buffer),
            () = sleep_until(next) => {
                session.handle_timers()?;
                source.set_health(session.health());
            }
        }
        session.carry_out();
    }
    session.withdraw().await;
    Ok(())
}

struct Session<'a> {
    port: u16,
    rules: InterfaceRules,
    events: &'a EventSink,
    announcement: Announcement,
    /// What is announced at present.
    responder: Option<Responder>,
    /// None while nothing is to be heard and said.
    sockets: Option<Sockets>,
    links: Links,
    without_multicast: Vec<String>,
    neighbours: Neighbours,
    announce_at: BTreeSet<Instant>,
    announced: Option<Instant>,
    browse_at: Option<Instant>,
    browse_wait: Duration,
    asking: Asking,
    /// What was asked last, which comes back to us from every interface.
    asked: Vec<Vec<u8>>,
    lines: BTreeMap<u32, Line>,
    links_due: Option<Instant>,
    anew: Anew,
    /// When we last looked for whoever was lost, and when we do so again.
    search: Anew,
    check_due: Instant,
}

impl<'a> Session<'a> {
    async fn start(source: &mut Mdns, events: &'a EventSink) -> Result<Self, DiscoveryError> {
        let announcement = source.announcement.borrow_and_update().clone();
        let mut neighbours =
            Neighbours::new(announcement.cluster_id.clone(), announcement.boot.clone());
        neighbours.set_known(source.known.borrow_and_update().clone());
        let now = Instant::now();
        let mut session = Self {
            port: source.port,
            rules: source.rules.clone(),
            events,
            announcement: announcement.clone(),
            responder: None,
            sockets: None,
            links: Links::default(),
            without_multicast: Vec::new(),
            neighbours,
            announce_at: BTreeSet::new(),
            announced: None,
            browse_at: None,
            browse_wait: BROWSE.0,
            asking: Asking::default(),
            asked: Vec::new(),
            lines: BTreeMap::new(),
            links_due: None,
            anew: Anew::default(),
            search: Anew::default(),
            check_due: now + CHECK,
        };
        session.look_at_links(now)?;
        session.follow(announcement).await?;
        session.carry_out();
        source.set_health(session.health());
        tracing::info!(interfaces = ?session.links.names(), "Discovery on the LAN started");
        Ok(session)
    }

    /// Does what the announcement wants, from whatever is done at present.
    async fn follow(&mut self, announcement: Announcement) -> Result<(), DiscoveryError> {
        let now = Instant::now();
        let wanted = announcement.advertise || announcement.discover;
        if wanted && self.sockets.is_none() {
            let mut sockets = Sockets::open(self.port)?;
            sockets.follow(&self.links);
            self.sockets = Some(sockets);
        }
        if announcement.discover && self.browse_at.is_none() {
            self.browse_at = Some(now);
            self.browse_wait = BROWSE.0;
        } else if !announcement.discover && self.browse_at.take().is_some() {
            self.neighbours.clear();
        }
        let responder = Responder::new(&announcement).filter(|_| announcement.advertise);
        if responder.is_none() {
            self.withdraw().await;
        } else if self.responder != responder {
            self.responder = responder;
            self.announce_now_and_again(now);
        }
        if !wanted {
            self.sockets = None;
            self.lines.clear();
        }
        self.announcement = announcement;
        Ok(())
    }

    fn announce_now_and_again(&mut self, now: Instant) {
        self.announce_at.insert(now);
        for after in REPEATED_ANNOUNCEMENTS {
            self.announce_at
                .insert(now + after.mul_f64(0.9 + fraction() / 5.0));
        }
    }

    /// Announces us as soon as that is polite, and a moment later.
    fn announce_soon(&mut self, pause: Duration, now: Instant, moment: Duration) {
        let polite = self.announced.map_or(now, |announced| announced + pause);
        self.announce_at.insert(polite.max(now) + moment);
    }

    /// Says what is to be said by now.
    fn carry_out(&mut self) {
        let now = Instant::now();
        if self.announce_at.first().is_some_and(|due| *due <= now) {
            self.announce_at = self.announce_at.split_off(&(now + Duration::from_nanos(1)));
            self.announced = Some(now);
            let links: Vec<u32> = self.links.iter().map(|(_, link)| link.index).collect();
            for index in links {
                self.announce(index, false, now);
            }
        }
        if self.neighbours.take_lost() {
            self.look_anew(now);
        }
        if self.browse_at.is_some_and(|due| due <= now) {
            let is_first = self.browse_wait == BROWSE.0;
            self.browse_at = Some(now + self.browse_wait);
            self.browse_wait = (self.browse_wait * 2).min(BROWSE.1);
            let mut queries = responder::browse(self.neighbours.known_answers(now));
            if is_first {
                queries.insert(0, responder::first_question());
            }
            self.ask(&queries, now);
        }
        self.ask_about_neighbours(now);
        while let Some(event) = self.neighbours.poll_event() {
            self.events.send(event);
        }
    }

    /// Announces us on one link.
    fn announce(&mut self, index: u32, list: bool, now: Instant) {
        let (Some(responder), Some(sockets)) = (&self.responder, &self.sockets) else {
            return;
        };
        let Some((name, link)) = self.links.numbered(index) else {
            return;
        };
        let data = responder
            .announcement(link.said.iter().copied(), list)
            .encode();
        sockets.multicast(name, link, &data);
        let line = self.lines.entry(index).or_default();
        line.silent.get_or_insert(now);
        line.announced = Some(now);
        line.answer = None;
    }

    fn verify(&mut self, instance: &str) {
        self.neighbours.verify(instance, Instant::now());
    }

    fn next_timer(&self) -> Instant {
        let lines = self.lines.values().filter_map(Line::next_timer);
        [
            self.announce_at.first().copied(),
            self.browse_at,
            self.asking.due,
            self.links_due,
            self.anew.due,
            self.search.due,
            self.neighbours.next_timer(),
            lines.min(),
        ]
        .into_iter()
        .flatten()
        .fold(self.check_due, Instant::min)
    }

    fn handle_timers(&mut self) -> Result<(), DiscoveryError> {
        let now = Instant::now();
        if self.links_due.is_some_and(|due| due <= now) {
            self.links_due = None;
            self.look_at_links(now)?;
        }
        if self.anew.due.is_some_and(|due| due <= now) {
            self.speak_anew(now);
        }
        if self.search.due.is_some_and(|due| due <= now) {
            self.look_anew(now);
        }
        self.answer_unfinished(now);
        let due = |line: &Line| line.answer.filter(|(due, _)| *due <= now);
        let answers: Vec<(u32, bool)> = self
            .lines
            .iter()
            .filter_map(|(index, line)| due(line).map(|(_, list)| (*index, list)))
            .collect();
        for (index, list) in answers {
            self.announce(index, list, now);
            if let Some(line) = self.lines.get_mut(&index) {
                line.answer = None;
            }
        }
        let due = self.neighbours.next_timer();
        if due.is_some_and(|due| due <= now) {
            self.neighbours.handle_timeout(&self.links, now);
        }
        if self.check_due <= now {
            self.check_due = now + CHECK;
            self.look_at_links(now)?;
            self.check_lines(now);
        }
        Ok(())
    }

    async fn withdraw(&mut self) {
        self.announce_at.clear();
        self.lines.values_mut().for_each(Line::drop_answers);
        let (Some(responder), Some(sockets)) = (self.responder.take(), &self.sockets) else {
            return;
        };
        for round in 0..2 {
            if round > 0 {
                tokio::time::sleep(SECOND_GOODBYE).await;
            }
            for (name, link) in self.links.iter() {
                let data = responder.goodbye(link.said.iter().copied()).encode();
                sockets.multicast(name, link, &data);
            }
        }
    }
}
