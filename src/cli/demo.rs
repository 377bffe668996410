//! `landbridge demo`: clusters on this machine that find each other, peer and ping, before your eyes.
//!
//! ```text
//! demo (outside)      makes namespaces for users, mounts, network and processes, and waits
//!   demo (inside)     process 1 of them: when it ends, the kernel removes everything
//!     bridge -- eth0 in namespace rome   landbridge run
//!            '- eth0 in namespace milan  landbridge run
//! ```
//! In the scenario dns each namespace has a network of its own instead, with process 1 as the router
//! between them and a name server beside it.

mod lab;
mod name_server;
mod observe;
mod ping;
mod sandbox;

use std::{
    collections::BTreeSet,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use super::{
    Failure,
    args::{Demo, Scenario},
    output,
};
use lab::Lab;
use observe::{News, What};

/// How long the clusters may take. They need a second or two.
const PATIENCE: Duration = Duration::from_mins(1);
/// How many echoes are sent through each tunnel.
const ECHOES: u16 = 3;

/// Runs the demo. It is well only when every ping came back through the tunnels.
pub(super) fn demo(options: &Demo) -> Result<(), Failure> {
    if options.scenario == Scenario::Dns {
        name_server::program()?;
    }
    if !sandbox::is_inside() {
        let code = sandbox::run_inside()?;
        // The process inside has said everything.
        std::process::exit(code);
    }
    sandbox::settle()?;
    let mut lab = Lab::build(options.clusters, options.scenario)?;
    let outcome = play(options, &mut lab);
    lab.stop();
    outcome
}

fn play(options: &Demo, lab: &mut Lab) -> Result<(), Failure> {
    let count = lab.members().len();
    say(&format!(
        "landbridge demo: {count} clusters in network namespaces of their own; nothing leaves this machine\n"
    ))?;
    let show = Show {
        start: Instant::now(),
        width: lab.members().iter().map(|member| member.name.len()).max(),
    };
    lab.start(options.scenario)?;
    let news = observe::start(lab.members());
    follow(options, lab, &show, &news)?;
    ping_all(lab, &show)?;
    say("\n")?;
    for member in lab.members() {
        say(&format!("{} $ kubectl get foreignclusters\n", member.name))?;
        say(&(observe::table(member)? + "\n"))?;
    }
    if options.hold {
        hold(lab, &news)?;
    }
    Ok(())
}

/// Tells what happens until every cluster is peered with every other.
fn follow(
    options: &Demo,
    lab: &mut Lab,
    show: &Show,
    news: &Receiver<News>,
) -> Result<(), Failure> {
    let wanted = lab.members().len() * (lab.members().len() - 1);
    let (mut ready, mut listed) = (BTreeSet::new(), BTreeSet::new());
    let mut peered = BTreeSet::new();
    while peered.len() < wanted {
        let left = PATIENCE.saturating_sub(show.start.elapsed());
        let item = match news.recv_timeout(left.min(Duration::from_millis(200))) {
            Ok(item) => item,
            Err(RecvTimeoutError::Timeout) if left.is_zero() => return Err(stuck(lab)),
            Err(RecvTimeoutError::Timeout) => {
                if let Some(text) = lab.ended() {
                    return Err(failed(lab, text));
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return Err(stuck(lab)),
        };
        let text = match item.what {
            What::Interrupted => return Err(Failure::NotSo("interrupted".to_owned())),
            What::Ready { text } => {
                ready.insert(item.cluster.clone());
                text
            }
            What::Listed { text } => {
                listed.insert(item.cluster.clone());
                text
            }
            What::Step { text } => text,
            What::Peered { peer, text } => {
                peered.insert((item.cluster.clone(), peer));
                text
            }
        };
        show.line(&item.cluster, &text)?;
        if options.scenario == Scenario::Manual && ready.len() == lab.members().len() {
            ready.clear();
            introduce(lab, show)?;
        }
        if listed.len() == lab.members().len() {
            listed.clear();
            for member in lab.members() {
                show.line(&member.name, &observe::search(member)?)?;
            }
        }
    }
    Ok(())
}

/// Writes a ForeignCluster for each other cluster, as a person would.
fn introduce(lab: &Lab, show: &Show) -> Result<(), Failure> {
    for member in lab.members() {
        for peer in lab.members().iter().filter(|peer| peer.name != member.name) {
            show.line(&member.name, &Lab::introduce(member, peer)?)?;
        }
    }
    Ok(())
}

fn ping_all(lab: &Lab, show: &Show) -> Result<(), Failure> {
    for member in lab.members() {
        for (peer, address) in observe::addresses(member)? {
            let replies = sandbox::within(&member.name, move || ping::ping(address, ECHOES))?
                .map_err(|error| Failure::NotSo(format!("cannot ping: {error}")))?;
            let Some(best) = replies.iter().min() else {
                let name = &member.name;
                let text = format!("no ping of {name} came back from {peer} at {address}");
                return Err(failed(lab, text));
            };
            let (back, best) = (replies.len(), best.as_secs_f64() * 1000.0);
            let text = format!(
                "ping {address} ({peer}) through the tunnel: {back} of {ECHOES} came back, {best:.1} ms"
            );
            show.line(&member.name, &text)?;
        }
    }
    Ok(())
}

/// Says how to look at the clusters and waits for Ctrl-C.
fn hold(lab: &Lab, news: &Receiver<News>) -> Result<(), Failure> {
    let pid = sandbox::outer_pid();
    let mut text = "Look at them from another terminal, for example:\n".to_owned();
    for member in lab.members() {
        text = format!("{text}  {}\n", member.entrance(&pid));
    }
    say(&format!(
        "{text}Ctrl-C ends the demo and removes everything.\n"
    ))?;
    while let Ok(item) = news.recv() {
        if matches!(item.what, What::Interrupted) {
            break;
        }
    }
    Ok(())
}

fn stuck(lab: &Lab) -> Failure {
    for member in lab.members() {
        let status = observe::status(member).unwrap_or_else(|failure| format!("{failure}\n"));
        output::remark(&format!("--- {}: landbridge status\n{status}", member.name));
    }
    let seconds = PATIENCE.as_secs();
    failed(lab, format!("the clusters did not peer within {seconds} s"))
}

/// Shows the logs, since they go away with the demo.
fn failed(lab: &Lab, text: String) -> Failure {
    output::remark(&lab.logs());
    Failure::NotSo(text)
}

/// Lines with the time since the start.
struct Show {
    start: Instant,
    width: Option<usize>,
}

impl Show {
    fn line(&self, name: &str, text: &str) -> Result<(), Failure> {
        let seconds = self.start.elapsed().as_secs_f64();
        let width = self.width.unwrap_or_default();
        say(&format!(
            "{seconds:5.1}s  {name:width$}  {}\n",
            crate::telemetry::escape(text)
        ))
    }
}

fn say(text: &str) -> Result<(), Failure> {
    output::print(text)
}
