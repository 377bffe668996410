//! Name servers that are slow, that lie, and answers that are far too large.

use std::{
    fmt::Write as _,
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A, rdata::PTR, rdata::SRV},
};
use landbridge::{discovery::dns::look, engine::domain::Problem};

use crate::{
    bind::{Bind, Zone},
    lookup::{found, refused, servers},
};

/// A zone with one cluster.
fn small() -> Zone {
    Zone::new(
        "small.test",
        "@ PTR rome\nrome SRV 0 0 5870 gate\ngate A 10.0.0.1",
    )
}

/// Serves UDP on loopback: whatever the function makes of a question, each in its own time.
fn serve(answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Clone + Send + 'static) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let (question, answer) = (buffer[..length].to_vec(), answer.clone());
            let socket = socket.try_clone().expect("a socket");
            thread::spawn(move || {
                if let Some(bytes) = answer(&question) {
                    socket.send_to(&bytes, from).ok();
                }
            });
        }
    });
    address
}

/// A way to a server that takes its time.
fn slowly(server: &str, delay: Duration) -> String {
    let server: SocketAddr = server.parse().expect("an address");
    serve(move |question| {
        thread::sleep(delay);
        let socket = UdpSocket::bind("127.0.0.1:0").ok()?;
        socket.send_to(question, server).ok()?;
        let mut answer = vec![0; 4096];
        let length = socket.recv(&mut answer).ok()?;
        answer.truncate(length);
        Some(answer)
    })
}

#[tokio::test]
async fn a_slow_name_server_is_waited_for_and_a_very_slow_one_is_left() {
    let Some(bind) = Bind::start(&[small()], "") else {
        return;
    };
    let slow = slowly(&bind.address(), Duration::from_millis(500));
    let looked = look(&servers(&[&slow]), "small.test").await;
    assert_eq!((found(&looked).len(), looked.incomplete), (1, None));
    let very_slow = slowly(&bind.address(), Duration::from_secs(10));
    let looked = look(&servers(&[&very_slow, &bind.address()]), "small.test").await;
    assert_eq!((found(&looked).len(), looked.incomplete), (1, None));
    let looked = look(&servers(&[&very_slow]), "small.test").await;
    assert!(
        matches!(&looked.incomplete, Some(Problem::Passing(why)) if why.contains("127.0.0.1 does not answer")),
        "{:?}",
        looked.incomplete
    );
}

#[tokio::test]
async fn an_answer_that_does_not_fit_in_a_datagram_is_asked_for_again_over_tcp() {
    let mut records = "@ PTR crowd\n".to_owned();
    for number in 0..1500 {
        writeln!(
            records,
            "crowd SRV {number} 0 443 t{number}\nt{number} A 10.1.0.1"
        )
        .expect("a string");
    }
    let Some(bind) = Bind::start(&[Zone::new("crowd.test", &records)], "") else {
        return;
    };
    let looked = look(&servers(&[&bind.address()]), "crowd.test").await;
    assert_eq!(looked.incomplete, None);
    let services = looked.entries[0].services.as_ref().expect("an answer");
    let targets: Vec<&str> = services.iter().map(|one| one.target.as_str()).collect();
    assert_eq!(targets.len(), 16, "bounded");
    assert_eq!(targets[0], "t0.crowd.test", "the lowest priority of all");
    // A way on which only datagrams pass shows that it was TCP.
    let datagrams = slowly(&bind.address(), Duration::ZERO);
    let looked = look(&servers(&[&datagrams]), "crowd.test").await;
    assert!(found(&looked).is_empty());
    assert!(refused(&looked).contains_key("crowd.crowd.test"));
}

#[tokio::test]
async fn ten_thousand_srv_records_spoil_nothing_and_are_bounded() {
    let mut records = "@ PTR good\ngood SRV 0 0 443 gate\ngate A 10.0.0.1\n".to_owned();
    // One name cannot have more than a few thousand: no message of DNS holds them.
    for crowd in 0..10 {
        writeln!(records, "@ PTR crowd-{crowd}").expect("a string");
        for number in 0..1000 {
            writeln!(records, "crowd-{crowd} SRV {number} 0 443 t{number}").expect("a string");
        }
    }
    let Some(bind) = Bind::start(&[Zone::new("crowd.test", &records)], "") else {
        return;
    };
    let looked = look(&servers(&[&bind.address()]), "crowd.test").await;
    assert_eq!(
        (looked.incomplete.as_ref(), looked.entries.len()),
        (None, 11)
    );
    assert_eq!(found(&looked)["good.crowd.test"], ["10.0.0.1:443"]);
    let services = looked
        .entries
        .iter()
        .map(|entry| entry.services.as_ref().map_or(0, Vec::len));
    assert_eq!(services.sum::<usize>(), 1 + 10 * 16);
    let why = &refused(&looked)["crowd-0.crowd.test"];
    assert_eq!(why, "its target t0.crowd.test has no address");
}

#[tokio::test]
async fn records_that_nobody_asked_for_are_not_believed() {
    let liar = serve(|question| {
        let mut message = Message::from_vec(question).ok()?;
        let asked = message.queries.first()?.clone();
        message.metadata.message_type = MessageType::Response;
        message.metadata.response_code = ResponseCode::NoError;
        let name = |text: &str| Name::from_ascii(text).expect("a name");
        let mut say = |owner: &str, data| {
            message.add_answer(Record::from_rdata(name(owner), 60, data));
        };
        say("other.test.", RData::PTR(PTR(name("evil.other.test."))));
        say(
            "evil.other.test.",
            RData::SRV(SRV::new(0, 0, 443, name("gate.evil.test."))),
        );
        say("gate.evil.test.", RData::A(A::new(10, 6, 6, 6)));
        if asked.query_type() == RecordType::PTR && *asked.name() == name("liar.test.") {
            say("liar.test.", RData::PTR(PTR(name("rome.liar.test."))));
        }
        message.to_vec().ok()
    });
    let looked = look(&servers(&[&liar]), "liar.test").await;
    let instances: Vec<&str> = looked
        .entries
        .iter()
        .map(|one| one.instance.as_str())
        .collect();
    assert_eq!(instances, ["rome.liar.test"]);
    assert!(found(&looked).is_empty(), "{looked:?}");
}
