//! What bad input costs the built program in memory, and what others notice of it.

use crate::{
    bad_input::{deep, yaml_bomb},
    durability::{Daemon, MAPS, home},
    process::Process,
    rig::{post, send},
};
use kube::Client;
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What the daemon may take more after all of it than before, in KiB; a debug build is not thrifty.
const GROWTH: u32 = 48 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends everything that no honest client sends, once.
async fn misbehave(client: &Client) {
    let bodies = [
        ("application/json", deep(100_000)),
        ("application/yaml", deep(100_000)),
        ("application/yaml", yaml_bomb()),
        ("application/json", format!("\"{}\"", "x".repeat(3_500_000))),
        ("application/json", "\u{fffd}{".repeat(100_000)),
    ];
    for (media, body) in bodies {
        for (method, path) in [("POST", MAPS.to_owned()), ("PUT", format!("{MAPS}/a"))] {
            let headers = [("content-type", media)];
            let answer = send(client, method, &path, &headers, body.clone()).await;
            assert!([400, 413].contains(&answer.status.as_u16()), "{answer:?}");
        }
    }
    let copies =
        (0..30).map(|n| json!({"op": "copy", "from": "/data", "path": format!("/data/{n}")}));
    let bomb = json!(copies.collect::<Vec<_>>()).to_string();
    for (media, body) in [
        ("application/json-patch+json", bomb),
        ("application/merge-patch+json", deep(100_000)),
        ("application/apply-patch+yaml", yaml_bomb()),
    ] {
        let path = format!("{MAPS}/a?fieldManager=m");
        let answer = send(client, "PATCH", &path, &[("content-type", media)], body).await;
        assert!([400, 413].contains(&answer.status.as_u16()), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_takes_no_memory_and_nobody_else_notices() {
    let home = home();
    let daemon = Daemon::start(home.path(), &[]);
    let client = daemon.client(home.path()).await;
    let map = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    assert_eq!(post(&client, MAPS, &map).await.status, 201);
    let other = daemon.client(home.path()).await;
    let stop = CancellationToken::new();
    let end = stop.clone();
    let reading = tokio::spawn(async move {
        let mut count = 0;
        while !end.is_cancelled() {
            let read = send(&other, "GET", MAPS, &[], "");
            let answer = timeout(PATIENCE, read).await.expect("others are served");
            assert_eq!(answer.status, 200, "{answer:?}");
            count += 1;
        }
        count
    });
    misbehave(&client).await;
    let before = Process(daemon.id()).resident();
    for _ in 0..2 {
        misbehave(&client).await;
    }
    let after = Process(daemon.id()).resident();
    stop.cancel();
    assert!(reading.await.unwrap() > 0, "others were served meanwhile");
    assert!(
        after.saturating_sub(before) < GROWTH,
        "{before} KiB before, {after} KiB after"
    );
    daemon.kill();
}
