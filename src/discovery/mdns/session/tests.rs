//! A session without sockets: what it waits for, and when it means to speak.

use super::*;
use crate::{
    api::identity::ClusterName,
    discovery::mdns::wire::{Name, kind},
};

const LINK: u32 = 2;

fn session(events: &EventSink) -> Session<'_> {
    let announcement = Announcement {
        cluster_id: "rome-1".parse().expect("an id"),
        name: ClusterName::neutralise("rome"),
        boot: "aaaa".to_owned(),
        port: 5870,
        ttl: Duration::from_secs(90),
        advertise: true,
        discover: true,
    };
    let now = Instant::now();
    Session {
        port: 5353,
        rules: InterfaceRules::default(),
        events,
        responder: Responder::new(&announcement),
        neighbours: Neighbours::new(announcement.cluster_id.clone(), announcement.boot.clone()),
        announcement,
        sockets: None,
        links: Links::default(),
        without_multicast: Vec::new(),
        announce_at: BTreeSet::new(),
        announced: None,
        browse_at: Some(now + BROWSE.1),
        browse_wait: BROWSE.1,
        asked: Vec::new(),
        lines: BTreeMap::from([(LINK, Line::default())]),
        links_due: None,
        check_due: now + CHECK,
    }
}

fn line<'a>(session: &'a mut Session<'_>) -> &'a mut Line {
    session.lines.get_mut(&LINK).expect("the link of the test")
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_when_we_fall_silent_leaves_nothing_to_wait_for() {
    let (events, _kept) = EventSink::channel();
    let mut session = session(&events);
    let question = Question {
        name: Name::from_text("_landbridge._tcp.local").expect("a name"),
        kind: kind::PTR,
        unicast: false,
    };
    let unfinished = lines::Unfinished {
        questions: vec![question],
        due: Instant::now(),
    };
    let asker = "10.0.0.9".parse().expect("an address");
    line(&mut session).unfinished.insert(asker, unfinished);
    line(&mut session).answer = Some((Instant::now(), false));
    session.withdraw().await;
    session.handle_timers().expect("nothing is read");
    assert!(session.next_timer() > Instant::now());
}
