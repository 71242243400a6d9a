//! What takes too long, and what is too much.

use super::*;
use crate::pressure::{self, Level, Part, Usage, UsageReader};

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_silent_clients_are_closed() {
    let mut listeners = http(&[80]);
    listeners.extend(https(&[("a.example", &["a"])]));
    let short = Duration::from_millis(500);
    let limits =
        EdgeLimits { handshake: short, first_byte: short, request_head: short, ..EdgeLimits::default() };
    let edge = EdgeConfig { limits, ..EdgeConfig::default() };
    let live = Live::with(listeners, &Secrets::default().with("a", ecdsa("a.example")), edge);
    let manager = start(&live, Duration::ZERO);
    let (plain, tls) = (address(&manager, 80).await, address(&manager, 443).await);
    blocking(move || {
        let reads = |to: SocketAddr, bytes: &[u8]| {
            let mut socket = TcpStream::connect(to).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.write_all(bytes).unwrap();
            let mut seen = String::new();
            let _ = socket.read_to_string(&mut seen);
            seen
        };
        for (to, bytes) in
            [(plain, &b""[..]), (plain, b"PRI * HTTP"), (tls, b""), (tls, &[22, 3, 1, 0, 90, 1])]
        {
            assert_eq!(reads(to, bytes), "", "{bytes:?}");
        }
        let half_a_head = reads(plain, b"GET / HTTP/1.1\r\nhost: a\r\nx: ");
        assert!(half_a_head.starts_with("HTTP/1.1 408 "), "{half_a_head}");
        let mut secure = tls_client(tls, Some("a.example"), None).unwrap();
        secure.write_all(b"GET / HT").unwrap();
        let mut seen = String::new();
        let _ = secure.read_to_string(&mut seen);
        assert!(seen.starts_with("HTTP/1.1 408 "), "{seen}");
    })
    .await;
    manager.none_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_a_limit_are_closed_and_make_room_when_they_end() {
    for connections in [
        ConnectionLimits { total: Some(2), ..ConnectionLimits::default() },
        ConnectionLimits { per_listener: Some(2), ..ConnectionLimits::default() },
        ConnectionLimits { per_client: Some(2), ..ConnectionLimits::default() },
    ] {
        let edge = EdgeConfig { connections, ..EdgeConfig::default() };
        let live = Live::with(http(&[80]), &Secrets::default(), edge);
        let manager = start(&live, Duration::ZERO);
        let to = address(&manager, 80).await;
        let counting = manager.clone();
        blocking(move || {
            let open = || {
                let mut socket = TcpStream::connect(to).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                let served = socket.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").is_ok()
                    && socket.read(&mut [0; 64]).is_ok_and(|count| count > 0);
                served.then_some(socket)
            };
            let first = open().unwrap();
            let _second = open().unwrap();
            assert!(open().is_none(), "{connections:?}");
            assert_eq!(counting.refused(), 1);
            drop(first);
            let begin = std::time::Instant::now();
            while open().is_none() {
                assert!(begin.elapsed() < PATIENCE, "{connections:?}");
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_pings_is_told_to_calm_down() {
    let live = Live::new(http(&[80]), &Secrets::default());
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 80).await;
    let seen = blocking(move || {
        let mut socket = TcpStream::connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        let mut reading = socket.try_clone().unwrap();
        let reader = std::thread::spawn(move || {
            let mut seen = Vec::new();
            let _ = reading.read_to_end(&mut seen);
            seen
        });
        for _ in 0..5000 {
            if socket.write_all(b"\0\0\x08\x06\0\0\0\0\0calmdown").is_err() {
                break;
            }
        }
        reader.join().unwrap()
    })
    .await;
    // GOAWAY, last stream any, ENHANCE_YOUR_CALM.
    let goaway = seen.windows(17).find(|frame| frame[3] == 7);
    assert_eq!(goaway.map(|frame| frame[13..17].to_vec()), Some(vec![0, 0, 0, 11]), "{seen:?}");
    manager.none_left().await;
}

/// Usage that a test sets.
struct Said(Arc<Mutex<Usage>>);

impl UsageReader for Said {
    fn read(&mut self, _limits: &pressure::Limits) -> Usage {
        *self.0.lock().unwrap()
    }
}

/// Whether a request on it is answered.
fn asks(socket: &mut TcpStream) -> bool {
    let _closed = socket.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut seen = [0; 12];
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.read_exact(&mut seen).is_ok() && &seen == b"HTTP/1.1 200"
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_and_descriptors_are_given_up_in_steps_and_taken_back() {
    let live = Live::new(http(&[80]), &Secrets::default());
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 80).await;
    let usage = Arc::new(Mutex::new(Usage::default()));
    let following = pressure::follow(Said(usage.clone()), pressure::Limits::default, manager.clone(), None);
    tokio::spawn(following);
    let set = |memory: u64, files: u64| {
        let part = |used| Some(Part { used, limit: 1000 });
        *usage.lock().unwrap() = Usage { memory: part(memory), files: part(files) };
    };
    let reached = async |level: Level| {
        eventually(|| (manager.pressure().level() == level).then_some(())).await;
    };
    // A connection whose client has been answered, and that stays.
    let kept = Arc::new(Mutex::new(TcpStream::connect(to).unwrap()));
    let asked_on = |kept: &Arc<Mutex<TcpStream>>| {
        let kept = kept.clone();
        blocking(move || ask(&mut *kept.lock().unwrap()))
    };
    assert!(asked_on(&kept).await.ends_with("draining=false"));

    let silent = Arc::new(Mutex::new(TcpStream::connect(to).unwrap()));
    assert!(asked_on(&silent).await.ends_with("draining=false"));

    set(100, 860);
    reached(Level::Reluctant).await;
    let answer = asked_on(&kept).await;
    assert!(answer.ends_with("draining=true"), "{answer}");
    assert!(manager.connections() <= 2, "who comes is served");
    let fresh = Arc::new(Mutex::new(TcpStream::connect(to).unwrap()));
    assert!(asked_on(&fresh).await.ends_with("draining=true"));

    set(930, 100);
    reached(Level::Shedding).await;
    set(999, 100);
    reached(Level::Full).await;
    let ended = blocking(move || {
        let mut silent = silent.lock().unwrap();
        silent.set_read_timeout(Some(PATIENCE)).unwrap();
        silent.read(&mut [0]).map_err(|error| error.kind())
    });
    assert_eq!(ended.await, Ok(0), "who is idle makes room");
    // Each loop that waits in `accept` takes one in, at most, and has it wait; the kernel holds the others.
    let waiting: Vec<_> = (0..4).map(|_| TcpStream::connect(to).unwrap()).collect();
    assert!(manager.connections() <= 4, "{}", manager.connections());
    set(0, 0);
    reached(Level::Calm).await;
    for socket in waiting {
        let socket = Arc::new(Mutex::new(socket));
        assert!(blocking(move || asks(&mut socket.lock().unwrap())).await, "who came meanwhile was lost");
    }
    let after = Arc::new(Mutex::new(TcpStream::connect(to).unwrap()));
    assert!(asked_on(&after).await.ends_with("draining=false"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_that_swings_closes_nobody_who_was_just_let_in() {
    for (newcomer, heard) in [(PATIENCE, true), (Duration::from_millis(50), false)] {
        let limits = EdgeLimits { newcomer, ..EdgeLimits::default() };
        let mut listeners = http(&[80]);
        listeners.extend(https(&[("a.example", &["a"])]));
        let secrets = Secrets::default().with("a", ecdsa("a.example"));
        let live = Live::with(listeners, &secrets, EdgeConfig { limits, ..EdgeConfig::default() });
        let manager = start(&live, Duration::ZERO);
        let (plain, tls) = (address(&manager, 80).await, address(&manager, 443).await);
        let (mut plain, mut tls) = blocking(move || {
            let plain = TcpStream::connect(plain).unwrap();
            plain.set_read_timeout(Some(PATIENCE)).unwrap();
            (plain, tls_client(tls, Some("a.example"), None).unwrap())
        })
        .await;
        eventually(|| (manager.connections() == 2).then_some(())).await;
        for _ in 0..3 {
            for level in [Level::Full, Level::Shedding, Level::Full] {
                manager.relieve(level);
                manager.pressure().set(level);
            }
        }
        let answers = blocking(move || {
            if !heard {
                // Silence keeps no room.
                return [plain.read(&mut [0]).unwrap().to_string(), tls.read(&mut [0]).unwrap().to_string()];
            }
            [ask(&mut plain), ask(&mut tls)]
        })
        .await;
        for answer in answers {
            assert!(if heard { answer.contains("200 OK") } else { answer == "0" }, "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_has_lived_its_time_goes_after_its_request() {
    let limits = EdgeLimits { life: Some(Duration::from_millis(300)), ..EdgeLimits::default() };
    let live = Live::with(http(&[80]), &Secrets::default(), EdgeConfig { limits, ..EdgeConfig::default() });
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 80).await;
    let (first, last, more) = blocking(move || {
        let mut socket = TcpStream::connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let first = ask(&mut socket);
        let mut last = String::new();
        let begin = std::time::Instant::now();
        while !last.ends_with("draining=true") && begin.elapsed() < PATIENCE {
            last = ask(&mut socket);
        }
        (first, last, socket.read(&mut [0]).unwrap_or(0))
    })
    .await;
    assert!(first.ends_with("draining=false"), "{first}");
    assert!(last.ends_with("draining=true"), "{last}");
    assert_eq!(more, 0, "closed");
    // One that never sends a second request is closed too.
    let idle = blocking(move || {
        let mut socket = TcpStream::connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        ask(&mut socket);
        socket.read(&mut [0])
    })
    .await;
    assert_eq!(idle.unwrap(), 0);
    manager.none_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_connection_that_has_lived_its_time_gets_goaway() {
    let limits = EdgeLimits { life: Some(Duration::from_millis(300)), ..EdgeLimits::default() };
    let live = Live::with(http(&[80]), &Secrets::default(), EdgeConfig { limits, ..EdgeConfig::default() });
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 80).await;
    let seen = blocking(move || {
        let mut socket = TcpStream::connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        let mut seen = Vec::new();
        let mut room = [0; 1024];
        while !seen.windows(9).any(|frame: &[u8]| frame[..4] == [0, 0, 8, 7]) {
            match socket.read(&mut room) {
                Ok(count @ 1..) => seen.extend_from_slice(&room[..count]),
                _ => break,
            }
        }
        seen
    })
    .await;
    let goaway = seen.windows(17).find(|frame| frame[..4] == [0, 0, 8, 7]);
    assert_eq!(goaway.map(|frame| frame[13..17].to_vec()), Some(vec![0; 4]), "NO_ERROR: {seen:?}");
}
