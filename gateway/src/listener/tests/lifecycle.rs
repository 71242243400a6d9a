//! Listeners that come and go, ports that cannot be had, and drains.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn listeners_come_and_go_and_an_open_connection_stays() {
    let none = Secrets::default();
    let live = Live::new(http(&[80]), &none);
    let manager = start(&live, Duration::from_secs(3600));
    let first = address(&manager, 80).await;
    let mut open = blocking(move || {
        let mut open = TcpStream::connect(first).unwrap();
        assert!(ask(&mut open).ends_with("draining=false"));
        open
    })
    .await;
    assert_eq!(manager.connections_by_listener().get(&key(80)), Some(&1));

    assert!(manager.prepare(&http(&[80, 81])).is_empty());
    live.publish(http(&[80, 81]), &none);
    let second = address(&manager, 81).await;
    assert!(manager.all_bound());
    let mut open = blocking(move || {
        ask(&mut TcpStream::connect(second).unwrap());
        assert!(ask(&mut open).ends_with("draining=false"));
        open
    })
    .await;

    live.publish(http(&[81]), &none);
    eventually(|| (!manager.bound().contains_key(&key(80))).then_some(())).await;
    blocking(move || {
        eventually_refused(first);
        let answer = ask(&mut open);
        assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
        assert!(answer.ends_with("draining=true"), "{answer}");
        assert_eq!(open.read(&mut [0]).unwrap(), 0);
    })
    .await;
    manager.none_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_of_a_retired_listener_is_closed_after_its_grace() {
    let none = Secrets::default();
    let live = Live::new(http(&[80, 81]), &none);
    let manager = start(&live, Duration::from_millis(20));
    let (first, second) = (address(&manager, 80).await, address(&manager, 81).await);
    let (mut retired, silent, mut stays) = blocking(move || {
        let mut connections = (
            TcpStream::connect(first).unwrap(),
            TcpStream::connect(first).unwrap(),
            TcpStream::connect(second).unwrap(),
        );
        ask(&mut connections.0);
        ask(&mut connections.2);
        connections
    })
    .await;
    live.publish(http(&[81]), &none);
    blocking(move || {
        for mut closed in [&retired, &silent] {
            assert_eq!(closed.read(&mut [0]).unwrap(), 0);
        }
        assert!(ask(&mut stays).ends_with("draining=false"));
        let _ = retired.flush();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_a_failure_that_heals() {
    let taken = std::net::TcpListener::bind(("::", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let live = Live::new(http(&[80]), &Secrets::default());
    let bind = BindOptions { ports: BTreeMap::from([(80, port)]), ..BindOptions::default() };
    let manager =
        ListenerManager::new(live.clone(), Arc::new(Handler(Arc::new(Answer))), bind, Duration::ZERO);
    assert_eq!(manager.prepare(&live.listeners()).len(), 1);
    let running = manager.clone();
    tokio::spawn(async move { running.run(1).await });
    assert_eq!(manager.failures().len(), 1);
    assert!(!manager.all_bound());
    drop(taken);
    assert_eq!(address(&manager, 80).await.port(), port);
    assert!(manager.failures().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_accepts_for_a_while_and_ends_with_the_last_connection() {
    let live = Live::new(http(&[80]), &Secrets::default());
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 80).await;
    let controller = Arc::new(DrainController::new());
    let times = DrainTimes { min: Duration::from_millis(1500), max: PATIENCE };
    let ending = spawn_drained(controller.clone(), manager.clone(), times);
    let mut busy = blocking(move || {
        let mut busy = TcpStream::connect(to).unwrap();
        busy.write_all(b"GET / HT").unwrap();
        busy
    })
    .await;
    eventually(|| (manager.connections() == 1).then_some(())).await;
    controller.start();
    blocking(move || {
        // Word of the drain reaches the listener a moment after it has begun.
        let told = (0..100)
            .map(|_| ask(&mut TcpStream::connect(to).unwrap()))
            .find(|answer| answer.to_lowercase().contains("connection: close"));
        assert!(told.is_some(), "clients are told while they are still accepted");
        eventually_refused(to);
    })
    .await;
    assert!(!ending.is_finished(), "a request is being read");
    blocking(move || {
        busy.write_all(b"TP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let mut answer = String::new();
        busy.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("draining=true"), "{answer}");
    })
    .await;
    assert_eq!(tokio::time::timeout(PATIENCE, ending).await.unwrap().unwrap(), Exit::Drained);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_when_its_time_is_up_or_when_told_to_quit() {
    for quit in [false, true] {
        let live = Live::new(http(&[80]), &Secrets::default());
        let manager = start(&live, Duration::ZERO);
        let to = address(&manager, 80).await;
        let _half_a_head = blocking(move || {
            let mut socket = TcpStream::connect(to).unwrap();
            socket.write_all(b"GET / HT").unwrap();
            socket
        })
        .await;
        eventually(|| (manager.connections() == 1).then_some(())).await;
        let max = if quit { Duration::from_secs(3600) } else { Duration::from_millis(50) };
        let controller = Arc::new(DrainController::new());
        let ending =
            spawn_drained(controller.clone(), manager.clone(), DrainTimes { min: Duration::ZERO, max });
        controller.start();
        if quit {
            controller.quit();
        }
        let exit = tokio::time::timeout(PATIENCE, ending).await.unwrap().unwrap();
        assert_eq!(exit, if quit { Exit::Quit } else { Exit::TimeUp(1) });
    }
}

fn spawn_drained(
    controller: Arc<DrainController>,
    manager: ListenerManager,
    times: DrainTimes,
) -> tokio::task::JoinHandle<Exit> {
    tokio::spawn(async move { drained(&controller, &manager, times).await })
}

fn eventually_refused(to: SocketAddr) {
    let began = std::time::Instant::now();
    while TcpStream::connect(to).is_ok() {
        assert!(began.elapsed() < PATIENCE, "still accepting");
        std::thread::yield_now();
    }
}

/// Panics at the next connection when told to.
struct Fragile(Handler, std::sync::atomic::AtomicBool);

#[async_trait]
impl ConnectionHandler for Fragile {
    async fn serve(&self, stream: Stream, info: Arc<ConnectionInfo>, shutdown: ShutdownWatch) {
        assert!(!self.1.swap(false, std::sync::atomic::Ordering::SeqCst), "on purpose");
        self.0.serve(stream, info, shutdown).await;
    }

    async fn tunnel(&self, client: Client, info: Arc<ConnectionInfo>, route: Arc<TcpRoute>) {
        self.0.tunnel(client, info, route).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_panics_costs_its_own_connection() {
    let live = Live::new(http(&[80]), &Secrets::default());
    let handler = Arc::new(Fragile(Handler(Arc::new(Answer)), true.into()));
    let bind = BindOptions { ports: BTreeMap::from([(80, 0)]), ..BindOptions::default() };
    let manager = ListenerManager::new(live, handler, bind, Duration::ZERO);
    let running = manager.clone();
    tokio::spawn(async move { running.run(1).await });
    let to = address(&manager, 80).await;
    blocking(move || {
        let mut unlucky = TcpStream::connect(to).unwrap();
        assert_eq!(ask(&mut unlucky), "");
        assert!(ask(&mut TcpStream::connect(to).unwrap()).contains("200 OK"));
    })
    .await;
    manager.none_left().await;
    assert_eq!(manager.broken(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listeners_task_that_dies_is_noticed() {
    let live = Live::new(http(&[80]), &Secrets::default());
    let manager = start(&live, Duration::ZERO);
    address(&manager, 80).await;
    assert_eq!(manager.broken(), None);
    manager.lose_a_loop();
    eventually(|| manager.broken()).await;

    let manager = ListenerManager::new(
        live.clone(),
        Arc::new(Handler(Arc::new(Answer))),
        BindOptions { ports: BTreeMap::from([(80, 0)]), ..BindOptions::default() },
        Duration::ZERO,
    );
    let running = manager.clone();
    let following = tokio::spawn(async move { running.run(1).await });
    address(&manager, 80).await;
    following.abort();
    eventually(|| manager.broken()).await;
    manager.stop_accepting();
    assert_eq!(manager.broken(), None, "what is stopped is not broken");
}

#[tokio::test(flavor = "multi_thread")]
async fn unix_sockets_are_listened_on_and_left_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path: Arc<str> = dir.path().join("gw.sock").to_str().unwrap().into();
    let key = ListenerKey { bind: Bind::Unix(path.clone()), port: 0 };
    let listener = Listener::of_gateway(key.clone(), Chains::Http(chain("http", None)));
    let live = Live::new(BTreeMap::from([(key, Arc::new(listener))]), &Secrets::default());
    let first = start(&live, Duration::ZERO);
    eventually(|| first.all_bound().then_some(())).await;
    let asking = {
        let path = path.clone();
        move || ask(&mut std::os::unix::net::UnixStream::connect(&*path).unwrap())
    };
    assert!(blocking(asking.clone()).await.ends_with("port=0 draining=false"));

    // A second manager takes the same socket, while the first goes on until it is told.
    let inherited = Inherited::new(first.sockets().unwrap()).unwrap();
    let bind = BindOptions { inherited: inherited.clone(), ..BindOptions::default() };
    let second =
        ListenerManager::new(live.clone(), Arc::new(Handler(Arc::new(Answer))), bind, Duration::ZERO);
    assert!(second.prepare(&live.listeners()).is_empty());
    assert!(inherited.is_empty());
    assert!(blocking(asking.clone()).await.ends_with("draining=false"));
    first.stop_listening();
    assert_eq!(first.broken(), None);
    let running = second.clone();
    tokio::spawn(async move { running.run(1).await });
    assert!(blocking(asking).await.ends_with("draining=false"));
    assert!(second.all_bound());
}
