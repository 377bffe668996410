//! Questions on a terminal: what is typed is not shown, and the terminal is as it was afterwards.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    os::fd::OwnedFd,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use nix::{
    pty::openpty,
    sys::termios::{LocalFlags, tcgetattr},
    unistd::write,
};

use super::*;

#[test]
fn a_question_leaves_the_terminal_as_it_was() {
    let home = TempDir::new().expect("a directory");
    for (name, text) in [
        ("sealed", "nothing"),
        ("kubeconfig", &kubeconfig_of(&api_that_knows_milan())),
    ] {
        fs::write(home.path().join(name), text).expect("writable");
    }
    let import = ["identity", "import", "sealed"];
    let store = ["token", "store", "milan", "--kubeconfig", "kubeconfig"];
    for arguments in [&import[..], &store] {
        for end in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let said = answer(&home, arguments, |process, _| signal(process, end));
            assert!(said.starts_with("error: interrupted"), "{end}: {said}");
        }
        let said = answer(&home, arguments, |_, terminal| {
            write(terminal, b"short\n").expect("a terminal");
        });
        assert!(said.starts_with("error: "), "{said}");
        assert!(!said.contains("interrupted"), "{said}");
    }
}

/// Runs a verb on a terminal until it asks, answers it, and returns what it says then.
fn answer(home: &TempDir, arguments: &[&str], answer: impl FnOnce(u32, &OwnedFd)) -> String {
    let terminal = openpty(None, None).expect("a terminal");
    let stdin = terminal.slave.try_clone().expect("a terminal");
    let mut child = command(home)
        .args(arguments)
        .current_dir(home.path())
        .stdin(stdin)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut text = String::new();
    said.read_line(&mut text).expect("a question");
    assert!(
        text.ends_with(":\n") && !text.starts_with("error"),
        "{text}"
    );
    let deadline = Instant::now() + Duration::from_secs(30);
    while shows(&terminal.slave) {
        assert!(Instant::now() < deadline, "what is typed is shown");
        thread::sleep(Duration::from_millis(10));
    }
    answer(child.id(), &terminal.master);
    text.clear();
    said.read_to_string(&mut text).expect("text");
    child.wait().expect("our child");
    assert!(shows(&terminal.slave), "it stays hidden: {text}");
    text
}

/// Whether a terminal shows what is typed.
fn shows(terminal: &OwnedFd) -> bool {
    let settings = tcgetattr(terminal).expect("a terminal");
    settings.local_flags.contains(LocalFlags::ECHO)
}

/// Serves an API that answers everything with the list of one cluster, and returns its URL.
fn api_that_knows_milan() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let body = r#"{"apiVersion": "discovery.liqo.io/v1alpha1", "kind": "ForeignClusterList", "metadata": {},
        "items": [{"metadata": {"name": "milan"}, "spec": {"authUrl": "", "clusterIdentity": {"clusterID": "aa"}}}]}"#;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
    let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}
