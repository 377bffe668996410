//! The load of a busy daemon on its API:
//! `cargo bench --bench api [-- [--beside F | --kubeconfig F] [--seconds N] [--rounds N]]`.
//!
//! It starts an embedded API in a process of its own, so that memory and start can be told apart from
//! the clients. `--kubeconfig` names another server that takes the same load instead of ours, `--beside`
//! one that takes it by turns with ours.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a program for people, which ends when something is wrong"
)]

#[path = "../tests/support/process.rs"]
#[expect(dead_code, reason = "tests and benchmarks elsewhere use the rest")]
mod process;

use futures::TryStreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Config, Resource,
    api::{
        ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
        WatchEvent, WatchParams,
    },
    config::{KubeConfigOptions, Kubeconfig},
    core::{self, GroupVersionKind},
};
use landbridge::kubeapi::{
    KubeApi, Options, loopback,
    store::{Backend, Change, Commit, Operation, Sqlite},
};
use process::Process;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    env, fs,
    io::{Seek, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DEFINITION: &str = include_str!("../tests/kubeapi/data/definition.yaml");

/// What it defines.
const KIND: &str = "LbCluster";
const API_VERSION: &str = "discovery.lb.test/v1alpha1";

/// How long and how often everything is measured.
#[derive(Clone, Copy)]
struct Extent {
    seconds: u64,
    rounds: u64,
}

type Sent = Arc<Mutex<HashMap<String, Instant>>>;

#[tokio::main]
async fn main() {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let value = |name: &str| {
        let place = args.iter().position(|arg| arg == name)?;
        args.get(place + 1).cloned()
    };
    if let Some(home) = value("--serve") {
        return serve(Path::new(&home)).await;
    }
    let number = |name: &str, usual: u64| value(name).map_or(usual, |text| text.parse().unwrap());
    let extent = Extent {
        seconds: number("--seconds", 3),
        rounds: number("--rounds", 5),
    };
    println!(
        "load average {}, {} processors, {} rounds of {} s: median (least to most)",
        load_average(),
        processors(),
        extent.rounds,
        extent.seconds
    );
    disk();
    let other = |path: String| Side {
        name: "other",
        kubeconfig: PathBuf::from(path),
        server: None,
    };
    if let Some(path) = value("--kubeconfig") {
        everything(&[other(path)], extent).await;
    } else {
        let home = tempfile::tempdir().unwrap();
        let ours = embedded(home.path()).await;
        let sides = std::iter::once(ours).chain(value("--beside").map(other));
        everything(&sides.collect::<Vec<_>>(), extent).await;
    }
    println!("load average at the end {}", load_average());
}

/// Says how long the disk takes for 4 KiB that must survive, at the end of a file and in place: no
/// durable write can be faster.
fn disk() {
    let mut file = tempfile::tempfile().unwrap();
    for (what, again) in [("at the end", false), ("in place", true)] {
        if again {
            file.rewind().unwrap();
        }
        let mut times = Vec::new();
        for _ in 0..500 {
            let begun = Instant::now();
            file.write_all(&[0x55; 4_096]).unwrap();
            file.sync_data().unwrap();
            times.push(begun.elapsed());
        }
        let total: Duration = times.iter().sum();
        times.sort();
        println!(
            "4 KiB and fdatasync {what:<12} {:>7.3} ms, p99 {:.3} ms, {:.0} a second (n = 500)",
            percentile(&times, 50),
            percentile(&times, 99),
            500.0 / total.as_secs_f64()
        );
    }
}

/// Serves an embedded API until the process is ended.
async fn serve(home: &Path) {
    let now = jiff::Timestamp::now();
    let credentials = loopback::Credentials::load_or_create(home, now).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = KubeApi::open(Options {
        backend: Box::new(Sqlite::open(home.join("store.db")).unwrap()),
        commit: Commit::Threaded,
        clock: Arc::new(jiff::Timestamp::now),
        crds: landbridge::api::crds(),
    })
    .await
    .unwrap();
    loopback::serve(listener, api, &credentials, CancellationToken::new())
        .await
        .unwrap();
}

struct Server(Child);

impl Server {
    /// Starts a server and returns it with the time until it said that it is ready.
    async fn start(home: &Path) -> (Self, Duration) {
        let path = home.join("kubeconfig");
        let _ = fs::remove_file(&path);
        let begun = Instant::now();
        let child = Command::new(env::current_exe().unwrap())
            .args(["--serve", home.to_str().unwrap()])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self(child);
        loop {
            assert!(
                begun.elapsed() < Duration::from_mins(1),
                "the server does not start"
            );
            if path.exists()
                && let Ok(client) = client(&path).await
            {
                let ready = axum::http::Request::get("/readyz")
                    .body(Vec::new())
                    .unwrap();
                if client.request_text(ready).await.is_ok() {
                    return (server, begun.elapsed());
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn memory(&self) -> String {
        let kibibytes = Process(self.0.id()).resident();
        format!("{:.1} MB", f64::from(kibibytes) / 1_024.0)
    }

    fn processor_time(&self) -> Duration {
        Process(self.0.id()).processor_time()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that takes the load.
struct Side {
    name: &'static str,
    kubeconfig: PathBuf,
    /// Ours, whose memory and processor time can be read.
    server: Option<Server>,
}

/// Measures how an embedded API starts, and returns one.
async fn embedded(home: &Path) -> Side {
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let fresh = tempfile::tempdir().unwrap();
        first.push(Server::start(fresh.path()).await.1);
        again.push(Server::start(fresh.path()).await.1);
    }
    for (what, starts) in [
        ("which makes keys:", &mut first),
        ("no objects:", &mut again),
    ] {
        starts.sort();
        println!(
            "start to ready, {what:<18} {:>6.1} ms (median of 5)",
            millis(starts[2])
        );
    }
    let full = tempfile::tempdir().unwrap();
    fill(full.path(), 100_000);
    drop(Server::start(full.path()).await);
    let (server, start) = Server::start(full.path()).await;
    println!(
        "start to ready, 10^5 objects:      {:>6.1} ms, resident {}",
        millis(start),
        server.memory()
    );
    drop(server);
    let (server, _) = Server::start(home).await;
    Side {
        name: "ours",
        kubeconfig: home.join("kubeconfig"),
        server: Some(server),
    }
}

/// Puts objects into a store without an API before it.
fn fill(home: &Path, count: u64) {
    let mut store = Sqlite::open(home.join("store.db")).unwrap();
    let from = store.load().unwrap().revision;
    let changes: Vec<Change> = (1..=count)
        .map(|number| {
            let revision = from + number;
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"key": "x".repeat(500)},
                "metadata": {"name": format!("c{number}"), "namespace": "default",
                    "uid": format!("{number:08}-0000-4000-8000-000000000000"), "resourceVersion": revision.to_string(),
                    "creationTimestamp": "2026-11-21T00:00:00Z"}});
            Change {
                revision,
                key: format!("/configmaps/default/c{number}"),
                operation: Operation::Added,
                object: object.to_string().into(),
                replaces: None,
            }
        })
        .collect();
    for batch in changes.chunks(1_000) {
        store.commit(batch, 0).unwrap();
    }
    store.commit(&[], from + count).unwrap();
}

async fn everything(sides: &[Side], extent: Extent) {
    for side in sides {
        prepare(side).await;
    }
    println!();
    println!(
        "| clients | what | server | a second | times the other | sent to event p50, ms | p99, ms | processor time of the server, ms |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for clients in [1, 10, 50] {
        let mut rounds: Vec<Vec<[Figures; 3]>> = sides.iter().map(|_| Vec::new()).collect();
        for _ in 0..extent.rounds {
            for (side, rounds) in sides.iter().zip(&mut rounds) {
                let writers = connect(&side.kubeconfig, clients).await;
                let server = side.server.as_ref();
                rounds.push(round(&side.kubeconfig, &writers, extent.seconds, server).await);
                clean(&writers).await;
            }
        }
        tell(clients, sides, &rounds);
    }
}

/// Writes 10,000 times, half of them new objects, and says what that costs in memory.
async fn prepare(side: &Side) {
    let one = client(&side.kubeconfig).await.unwrap();
    define(&one).await;
    ask(&one, side.name).await;
    let before = side.server.as_ref().map(Server::memory);
    let writers = connect(&side.kubeconfig, 10).await;
    write(&writers, 5_000).await;
    if let (Some(before), Some(server)) = (before, &side.server) {
        println!(
            "resident before 5,000 creates and 5,000 merges {before}, after {}",
            server.memory()
        );
    }
    clean(&writers).await;
}

/// Says how long one client waits for what needs neither disk nor thought: with the disk it is what no
/// write can be faster than.
async fn ask(client: &Client, name: &str) {
    let mut times = Vec::new();
    for _ in 0..5_000 {
        let request = axum::http::Request::get("/version").body(Vec::new());
        let begun = Instant::now();
        client.request_text(request.unwrap()).await.unwrap();
        times.push(begun.elapsed());
    }
    times.sort();
    println!(
        "{name}: /version for one client    {:.3} ms, p99 {:.3} ms (n = 5,000)",
        percentile(&times, 50),
        percentile(&times, 99)
    );
}

fn tell(clients: usize, sides: &[Side], rounds: &[Vec<[Figures; 3]>]) {
    for (index, what) in ["create", "status, merge", "status, apply"]
        .iter()
        .enumerate()
    {
        let all = |rounds: &[[Figures; 3]], figure: fn(&Figures) -> f64| -> Vec<f64> {
            rounds.iter().map(|round| figure(&round[index])).collect()
        };
        let rates: Vec<f64> = rounds
            .iter()
            .map(|rounds| median(all(rounds, |figures| figures.rate)))
            .collect();
        for (number, (side, rounds)) in sides.iter().zip(rounds).enumerate() {
            let of = |figure: fn(&Figures) -> f64| spread(all(rounds, figure));
            let other = rates.get(1).filter(|_| number == 0);
            let ratio = other.map_or(String::new(), |other| format!("{:.1}", rates[0] / other));
            println!(
                "| {clients} | {what} | {} | {} | {ratio} | {} | {} | {} |",
                side.name,
                of(|figures| figures.rate),
                of(|figures| figures.middle),
                of(|figures| figures.late),
                of(|figures| figures.processor)
            );
        }
    }
}

/// What one load of one round gave.
struct Figures {
    rate: f64,
    middle: f64,
    late: f64,
    /// Milliseconds of processor time of the server for each write.
    processor: f64,
}

/// The same clients create, merge and apply, and one more watches.
async fn round(
    kubeconfig: &Path,
    writers: &[Client],
    seconds: u64,
    server: Option<&Server>,
) -> [Figures; 3] {
    let lasts = Duration::from_secs(seconds);
    [
        load(kubeconfig, writers, lasts, server, "ADDED", create).await,
        load(kubeconfig, writers, lasts, server, "MODIFIED", merge).await,
        load(kubeconfig, writers, lasts, server, "MODIFIED", apply).await,
    ]
}

async fn load<F, R>(
    kubeconfig: &Path,
    writers: &[Client],
    lasts: Duration,
    server: Option<&Server>,
    word: &'static str,
    deed: F,
) -> Figures
where
    F: Fn(Client, String, u64, Sent) -> R + Copy + Send + 'static,
    R: Future<Output = ()> + Send,
{
    let (sent, watch) = watch(kubeconfig, word).await;
    let before = server.map(Server::processor_time);
    let rate = run(writers, lasts, &sent, deed).await;
    let spent = server.map(Server::processor_time).zip(before);
    let mut latencies = finish(watch).await;
    latencies.sort();
    let count = rate * lasts.as_secs_f64();
    Figures {
        rate,
        middle: percentile(&latencies, 50),
        late: percentile(&latencies, 99),
        processor: spent.map_or(f64::NAN, |(after, before)| {
            millis(after.saturating_sub(before)) / count
        }),
    }
}

/// Lets every client do one thing again and again; returns how often a second.
async fn run<F, R>(writers: &[Client], lasts: Duration, sent: &Sent, deed: F) -> f64
where
    F: Fn(Client, String, u64, Sent) -> R + Copy + Send + 'static,
    R: Future<Output = ()> + Send,
{
    let begun = Instant::now();
    let tasks: Vec<_> = writers
        .iter()
        .enumerate()
        .map(|(index, client)| {
            let (api, sent) = (client.clone(), Arc::clone(sent));
            tokio::spawn(async move {
                let mut count = 0;
                while begun.elapsed() < lasts {
                    deed(api.clone(), format!("c{index}"), count, Arc::clone(&sent)).await;
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut total = 0;
    for task in tasks {
        total += task.await.unwrap();
    }
    f64::from(u32::try_from(total).unwrap()) / begun.elapsed().as_secs_f64()
}

async fn create(api: Client, client: String, number: u64, sent: Sent) {
    let name = format!("{client}-{number}");
    let object = json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name},
        "spec": {"authUrl": "https://10.0.0.2:5870", "join": true}});
    let request = collection().create(&PostParams::default(), object.to_string().into_bytes());
    send(&api, request.unwrap(), name, &sent).await;
}

async fn merge(api: Client, client: String, number: u64, sent: Sent) {
    let name = format!("{client}-0");
    let patch = Patch::Merge(json!({"status": status(number)}));
    let request = collection().patch_subresource("status", &name, &PatchParams::default(), &patch);
    send(&api, request.unwrap(), format!("{name}/{number}"), &sent).await;
}

async fn apply(api: Client, client: String, number: u64, sent: Sent) {
    let (name, number) = (format!("{client}-0"), number + 1_000_000);
    let patch = Patch::Apply(json!({"apiVersion": API_VERSION, "kind": KIND,
        "status": {"ttl": number, "authStatus": "Accepted"}}));
    let params = PatchParams::apply("bench").force();
    let request = collection().patch_subresource("status", &name, &params, &patch);
    send(&api, request.unwrap(), format!("{name}/{number}"), &sent).await;
}

/// Sends a write and hears the answer out. It is not read as an object: what the clients do is taken
/// from the processors that the servers have, too, and most of all from the faster one's.
async fn send(client: &Client, request: axum::http::Request<Vec<u8>>, key: String, sent: &Sent) {
    sent.lock().unwrap().insert(key, Instant::now());
    client.request_text(request).await.unwrap();
}

async fn write(writers: &[Client], count: u64) {
    let each = count / u64::try_from(writers.len()).unwrap();
    let tasks: Vec<_> = writers
        .iter()
        .enumerate()
        .map(|(index, client)| {
            let api = client.clone();
            tokio::spawn(async move {
                for number in 0..each {
                    let client = format!("c{index}");
                    create(api.clone(), client, number, Sent::default()).await;
                    merge(api.clone(), format!("c{index}"), number, Sent::default()).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// What the watch reads of an object.
#[derive(Clone, Deserialize)]
struct Told {
    metadata: Named,
    #[serde(default)]
    status: Counted,
}

#[derive(Clone, Deserialize)]
struct Named {
    name: String,
}

#[derive(Clone, Default, Deserialize)]
struct Counted {
    ttl: u64,
}

type Latencies = tokio::task::JoinHandle<Vec<Duration>>;

/// Watches from now on, and takes the time from a request's sending to its event.
async fn watch(kubeconfig: &Path, word: &'static str) -> (Sent, (CancellationToken, Latencies)) {
    let client = client(kubeconfig).await.unwrap();
    let newest = ListParams::default().limit(1);
    let list = clusters(&client).list_metadata(&newest).await.unwrap();
    let revision = list.metadata.resource_version.unwrap();
    let request = collection().watch(&WatchParams::default(), &revision);
    let stream = client.request_events::<Told>(request.unwrap());
    let stream = stream.await.unwrap();
    let (sent, stop) = (Sent::default(), CancellationToken::new());
    let (known, end) = (Arc::clone(&sent), stop.clone());
    let task = tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        let mut latencies = Vec::new();
        loop {
            let event = tokio::select! {
                () = end.cancelled() => return latencies,
                event = stream.try_next() => event.unwrap(),
            };
            let key = match (word, event) {
                ("ADDED", Some(WatchEvent::Added(told))) => told.metadata.name,
                ("MODIFIED", Some(WatchEvent::Modified(told))) => {
                    format!("{}/{}", told.metadata.name, told.status.ttl)
                }
                (_, None) => return latencies,
                _ => continue,
            };
            if let Some(at) = known.lock().unwrap().remove(&key) {
                latencies.push(at.elapsed());
            }
        }
    });
    (sent, (stop, task))
}

async fn finish((stop, task): (CancellationToken, Latencies)) -> Vec<Duration> {
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.cancel();
    task.await.unwrap()
}

async fn clean(writers: &[Client]) {
    let all = ListParams::default();
    let api = clusters(&writers[0]);
    let _ = api
        .delete_collection(&DeleteParams::default(), &all)
        .await
        .unwrap();
}

async fn define(client: &Client) {
    let definition: CustomResourceDefinition = serde_saphyr::from_str(DEFINITION).unwrap();
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    match api.create(&PostParams::default(), &definition).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        other => drop(other.unwrap()),
    }
    while clusters(client).list(&ListParams::default()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn client(kubeconfig: &Path) -> Result<Client, kube::Error> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    Client::try_from(config)
}

async fn connect(kubeconfig: &Path, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(client(kubeconfig).await.unwrap());
    }
    clients
}

fn clusters(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &resource())
}

/// The requests for these objects, not sent yet.
fn collection() -> core::Request {
    core::Request::new(DynamicObject::url_path(&resource(), None))
}

fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("discovery.lb.test", "v1alpha1", KIND);
    ApiResource::from_gvk_with_plural(&kind, "lbclusters")
}

/// A full status, about as large as that of a peer that is joined.
fn status(number: u64) -> Value {
    let reference = |kind: &str| {
        json!({"apiVersion": "net.liqo.io/v1alpha1", "kind": kind,
        "name": format!("{}-7c1d4e2a", kind.to_lowercase()), "namespace": "liqo", "uid": "7c1d4e2a-0000-4000-8000-000000000000"})
    };
    json!({"ttl": number, "authStatus": "Accepted",
        "outgoing": {"joined": true, "remote-peering-request-name": "rome", "availableIdentity": true,
            "advertisementStatus": "Accepted", "advertisement": reference("Advertisement"), "identityRef": reference("Secret")},
        "incoming": {"joined": true, "peeringRequest": reference("PeeringRequest")},
        "network": {"localNetworkConfig": {"available": true, "reference": reference("NetworkConfig")},
            "remoteNetworkConfig": {"available": true, "reference": reference("NetworkConfig")},
            "tunnelEndpoint": {"available": true, "reference": reference("TunnelEndpoint")}}})
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted
        .get(place)
        .map_or(f64::NAN, |latency| millis(*latency))
}

/// The median, and from where to where.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let (least, most) = (values[0], values[values.len() - 1]);
    let digits = if most < 1.0 {
        3
    } else {
        usize::from(most < 100.0)
    };
    let median = median(values);
    format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(1).collect()
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}
