//! A session without sockets: what it waits for, and when it means to speak.

use ipnet::IpNet;

use super::*;
use crate::{
    api::ClusterId,
    discovery::{
        interfaces::Link,
        mdns::{
            socket::Datagram,
            wire::{Name, Packet, Question, kind},
        },
    },
};

const LINK: u32 = 2;

fn session(events: &EventSink) -> Session<'_> {
    let announcement = Announcement::of_rome();
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
        asking: Asking::default(),
        asked: Vec::new(),
        lines: BTreeMap::from([(LINK, Line::default())]),
        links_due: None,
        anew: Anew::default(),
        search: Anew::default(),
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

#[tokio::test(start_paused = true)]
async fn a_link_that_is_blocked_makes_nobody_on_the_others_answer() {
    let (events, _kept) = EventSink::channel();
    let mut session = session(&events);
    let browse_at = session.browse_at;
    line(&mut session).silent = Some(Instant::now());
    for discover in [true, false] {
        session.browse_at = browse_at.filter(|_| discover);
        for _ in 0..10 {
            tokio::time::advance(CHECK).await;
            session.check_lines(Instant::now());
        }
        assert!(line(&mut session).is_blocked);
        assert_eq!(session.browse_at, browse_at.filter(|_| discover));
        assert!(session.announce_at.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_blocked_is_tried_ever_more_rarely() {
    let (events, _kept) = EventSink::channel();
    let mut session = session(&events);
    session.lines.insert(LINK + 1, Line::default());
    line(&mut session).silent = Some(Instant::now());
    let mut tries = Vec::new();
    for _ in 0..720 {
        tokio::time::advance(CHECK).await;
        tries.extend(session.due_tries(Instant::now()));
    }
    assert!((50..70).contains(&tries.len()), "{} an hour", tries.len());
    assert!(tries.iter().all(|index| *index == LINK), "{tries:?}");
}

/// Links of which one has an address of ours.
fn eth0() -> Links {
    let link = Link {
        index: LINK,
        subnets: vec!["10.0.0.5/24".parse().expect("a net")],
        said: vec!["10.0.0.5".parse().expect("an address")],
    };
    [("eth0".to_owned(), link)].into_iter().collect()
}

fn datagram(source: &str, length: usize) -> Datagram {
    Datagram {
        source: source.parse().expect("an address"),
        interface: LINK,
        length,
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_on_a_blocked_link_lets_us_speak_as_if_we_had_just_come() {
    let (events, _kept) = EventSink::channel();
    let mut session = session(&events);
    session.links = eth0();
    let echo = datagram("10.0.0.5:5353", 0);
    let later = session.browse_at;
    for blocked in [false, true] {
        line(&mut session).is_blocked = blocked;
        line(&mut session).silent = Some(Instant::now());
        session.take(Some(&echo), &[]);
        assert!(!line(&mut session).is_blocked);
        assert_eq!(line(&mut session).silent, None);
        assert_eq!(session.announce_at.is_empty(), !blocked);
        assert_eq!(session.browse_at == later, !blocked);
    }
}

#[tokio::test(start_paused = true)]
async fn links_that_come_and_go_all_the_time_make_us_speak_ever_more_rarely() {
    let (events, _kept) = EventSink::channel();
    let mut session = session(&events);
    session.check_due += Duration::from_hours(1);
    let mut spoken = Vec::new();
    for second in 0..300 {
        let now = Instant::now();
        session.speak_anew(now);
        session.handle_timers().expect("nothing is read");
        session.carry_out();
        spoken.extend((session.announced == Some(now)).then_some(second));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!((20..100).contains(&spoken.len()), "{spoken:?}");
    assert!(spoken.starts_with(&[0, 1]), "{spoken:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_us_back_is_answered_even_if_it_speaks_as_we_do() {
    let (events, _kept) = EventSink::channel();
    let mut session = session(&events);
    session.links = eth0();
    let responder = session.responder.as_ref().expect("it advertises");
    let address = || ["10.0.0.5".parse().expect("an address")].into_iter();
    let mut packet = responder.goodbye(address());
    let described = responder.announcement(address(), false);
    packet.answers.extend(described.answers);
    let data = packet.encode();
    for (source, objects) in [("10.0.0.5:5353", false), ("10.0.0.9:5353", true)] {
        session.take(Some(&datagram(source, data.len())), &data);
        assert_eq!(!session.announce_at.is_empty(), objects, "{source}");
    }
    assert_eq!(session.neighbours.len(), 0, "it is none of them");
}

#[tokio::test(start_paused = true)]
async fn somebody_else_who_asks_what_we_asked_is_answered_and_our_echo_is_not() {
    let (events, _kept) = EventSink::channel();
    let mut session = session(&events);
    session.links = eth0();
    session.sockets = Some(Sockets::open(0).expect("any port"));
    let data = responder::browse(std::iter::empty())[0].encode();
    session.asked = vec![data.clone()];
    for (source, answers) in [("10.0.0.5:5353", false), ("10.0.0.9:5353", true)] {
        session.take(Some(&datagram(source, data.len())), &data);
        assert_eq!(line(&mut session).answer.is_some(), answers, "{source}");
    }
}

/// A session that hears of clusters and then that all of them are gone, by somebody else.
fn session_in_doubt(events: &EventSink, clusters: u8) -> Session<'_> {
    let mut session = session(events);
    session.links = eth0();
    session.sockets = Some(Sockets::open(0).expect("any port"));
    for goodbye in [false, true] {
        for number in 0..clusters {
            let announcement = Announcement {
                cluster_id: format!("cluster-{number}").parse().expect("an id"),
                ..Announcement::of_rome()
            };
            let responder = Responder::new(&announcement).expect("an id is a label");
            let address = [10, 0, 0, 100 + number].into();
            let packet = if goodbye {
                responder.goodbye(std::iter::empty())
            } else {
                responder.announcement([address].into_iter(), false)
            };
            let data = packet.encode();
            let source = if goodbye {
                "10.0.0.9:5353"
            } else {
                &format!("{address}:5353")
            };
            session.take(Some(&datagram(source, data.len())), &data);
        }
    }
    session
}

#[tokio::test(start_paused = true)]
async fn a_question_about_neighbours_waits_a_moment_and_packets_leave_slowly() {
    let (events, _kept) = EventSink::channel();
    let mut session = session_in_doubt(&events, 32);
    session.carry_out();
    assert!(session.asked.is_empty(), "others may ask it");
    tokio::time::advance(Duration::from_millis(120)).await;
    session.carry_out();
    assert!(session.asked.len() > 2, "{} packets", session.asked.len());
    // What comes next waits for what went out.
    session.asked.clear();
    session.verify("cluster-0");
    tokio::time::advance(Duration::from_millis(120)).await;
    session.carry_out();
    assert!(session.asked.is_empty());
    tokio::time::advance(Duration::from_secs(1)).await;
    session.carry_out();
    assert!(!session.asked.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_asks_is_not_asked_and_not_left_twice_without_an_answer() {
    let (events, _kept) = EventSink::channel();
    for (rounds, asks) in [(0, true), (1, false), (2, true)] {
        let mut session = session_in_doubt(&events, 1);
        for round in 0..rounds {
            if round > 0 {
                session.verify("cluster-0");
            }
            let query = Packet {
                questions: vec![Question {
                    name: Name::from_text("cluster-0._landbridge._tcp.local").expect("a name"),
                    kind: kind::SRV,
                    unicast: false,
                }],
                ..Packet::default()
            };
            let data = query.encode();
            session.take(Some(&datagram("10.0.0.9:5353", data.len())), &data);
        }
        session.carry_out();
        tokio::time::advance(Duration::from_millis(120)).await;
        session.carry_out();
        assert_eq!(!session.asked.is_empty(), asks, "{rounds}");
    }
}

/// What a cluster at an address says, or takes back.
fn said(session: &mut Session<'_>, number: u8, goodbye: bool) {
    let announcement = Announcement {
        cluster_id: id(number),
        ..Announcement::of_rome()
    };
    let responder = Responder::new(&announcement).expect("an id is a label");
    let address = [10, 0, 0, 100 + number].into();
    let packet = if goodbye {
        responder.goodbye([address].into_iter())
    } else {
        responder.announcement([address].into_iter(), false)
    };
    let data = packet.encode();
    session.take(
        Some(&datagram(&format!("{address}:5353"), data.len())),
        &data,
    );
}

fn id(number: u8) -> ClusterId {
    format!("cluster-{number}").parse().expect("an id")
}

/// Lets time pass, as the loop does, and returns in how many seconds we asked for everybody.
async fn asked_for_everybody(session: &mut Session<'_>, seconds: u64) -> Vec<u64> {
    let mut asked = Vec::new();
    for second in 0..seconds {
        tokio::time::advance(Duration::from_secs(1)).await;
        let browse_at = session.browse_at;
        session.handle_timers().expect("nothing is read");
        session.carry_out();
        asked.extend(
            (session.browse_at > browse_at && session.browse_wait < BROWSE.1).then_some(second),
        );
    }
    asked
}

/// A session that heard of clusters that there are objects for, and asks for others once an hour.
fn session_with_known(events: &EventSink, clusters: u8) -> Session<'_> {
    let mut session = session(events);
    session.links = eth0();
    session.check_due += Duration::from_hours(2);
    session
        .neighbours
        .set_known((0..clusters).map(id).collect());
    for number in 0..clusters {
        said(&mut session, number, false);
    }
    session
}

#[tokio::test(start_paused = true)]
async fn whoever_is_lost_without_a_goodbye_is_looked_for_and_who_says_goodbye_is_not() {
    let (events, _kept) = EventSink::channel();
    for goodbye in [false, true] {
        let mut session = session_with_known(&events, 1);
        if goodbye {
            said(&mut session, 0, true);
        }
        let asked = asked_for_everybody(&mut session, 400).await;
        assert_eq!(session.neighbours.len(), 0);
        assert_eq!(!asked.is_empty(), !goodbye, "{asked:?}");
        let pauses: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.is_sorted(), "ever more rarely: {asked:?}");
        assert!(goodbye || (6..10).contains(&asked.len()), "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_that_are_lost_one_after_the_other_make_no_storm() {
    let (events, _kept) = EventSink::channel();
    let mut session = session_with_known(&events, 0);
    session.neighbours.set_known((0..60).map(id).collect());
    let mut asked = Vec::new();
    for number in 0..60 {
        said(&mut session, number, false);
        asked.extend(asked_for_everybody(&mut session, 5).await);
    }
    asked.extend(asked_for_everybody(&mut session, 300).await);
    assert_eq!(session.neighbours.len(), 0);
    assert!((10..120).contains(&asked.len()), "{}", asked.len());
}

#[tokio::test(start_paused = true)]
async fn those_who_hear_the_same_do_not_speak_in_the_same_moment() {
    let (events, _kept) = EventSink::channel();
    let due = |crowd, newcomer| {
        let mut session = session_with_known(&events, crowd);
        session.sockets = Some(Sockets::open(0).expect("any port"));
        let now = Instant::now();
        line(&mut session).announced = Some(now);
        session.announce_at.clear();
        if newcomer {
            said(&mut session, 100, false);
            return *session.announce_at.first().expect("it is told") - now;
        }
        let data = responder::browse(std::iter::empty())[0].encode();
        session.take(Some(&datagram("10.0.0.9:5353", data.len())), &data);
        line(&mut session).answer.expect("it is answered").0 - now
    };
    for (crowd, newcomer, least) in [(0, false, ANNOUNCEMENT_PAUSE), (20, true, Duration::ZERO)] {
        let (one, other) = (due(crowd, newcomer), due(crowd, newcomer));
        assert_ne!(one, other);
        assert!(one >= least && one <= least + Duration::from_millis(120));
    }
    assert_eq!(due(1, true), Duration::ZERO, "two machines are quick");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_leaves_a_link_is_taken_back_there() {
    let (events, _kept) = EventSink::channel();
    let mut session = session(&events);
    let with = |nets: &[&str]| -> Links {
        let subnets: Vec<IpNet> = nets.iter().map(|net| net.parse().expect("nets")).collect();
        let link = Link {
            index: LINK,
            said: subnets.iter().map(IpNet::addr).collect(),
            subnets,
        };
        [("eth0".to_owned(), link)].into_iter().collect()
    };
    session.links = with(&["10.0.0.5/24", "fe80::5/64"]);
    let left = session.taken_back(&with(&["fe80::5/64"]));
    let [(LINK, packet)] = left.as_slice() else {
        panic!("one link: {left:?}");
    };
    let responder = session.responder.as_ref().expect("it advertises");
    let all = responder.goodbye(["10.0.0.5".parse().expect("an address")].into_iter());
    let last = all.answers.last().cloned();
    assert_eq!(packet.answers, Vec::from_iter(last), "nothing else ends");
    assert_eq!(
        session.taken_back(&with(&["10.0.0.5/24", "fe80::5/64"])),
        []
    );
    assert_eq!(session.taken_back(&Links::default()), [], "nobody hears it");
}
