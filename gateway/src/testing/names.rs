//! A DNS server that answers as it is told: with addresses, with errors, or not at all.
//!
//! Invariant: an answer that is too long for a datagram is cut there, marked so, and whole over TCP (RFC 1035 §4.2).

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Known {
    /// These IPv4 addresses, for so many seconds. There are none of IPv6.
    At(Vec<Ipv4Addr>, u32),
    /// There is no such name: NXDOMAIN.
    Nothing,
    /// The server fails: SERVFAIL.
    Fails,
    /// Questions for it get no answer.
    Silence,
}

/// Names, and how often each was asked for.
#[derive(Debug, Default)]
struct Table {
    known: HashMap<String, Known>,
    asked: HashMap<String, usize>,
}

/// A server for names, which lives for as long as the runtime that it was started on. Names that it was not told of do not exist.
#[derive(Clone, Debug)]
pub struct Names {
    address: SocketAddr,
    table: Arc<Mutex<Table>>,
}

/// Longest answer in a datagram.
const DATAGRAM: usize = 512;

impl Names {
    /// One on this address, over UDP and TCP.
    ///
    /// # Errors
    /// Where it cannot be had.
    pub async fn on(address: SocketAddr) -> io::Result<Names> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let datagrams = UdpSocket::bind(address).await?;
        let names = Names { address, table: Arc::default() };
        let table = names.table.clone();
        tokio::spawn(async move {
            let mut question = [0; DATAGRAM];
            while let Ok((count, from)) = datagrams.recv_from(&mut question).await {
                if let Some(answer) = answer(&question[..count], &table, DATAGRAM) {
                    let _gone = datagrams.send_to(&answer, from).await;
                }
            }
        });
        let table = names.table.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(whole(stream, table.clone()));
            }
        });
        Ok(names)
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is answered for a name from now on.
    pub fn set(&self, name: &str, known: Known) {
        self.table().known.insert(name.to_owned(), known);
    }

    /// How often a name was asked for, by whichever type.
    #[must_use]
    pub fn asked(&self, name: &str) -> usize {
        self.table().asked.get(name).copied().unwrap_or(0)
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn whole(mut stream: TcpStream, table: Arc<Mutex<Table>>) -> Option<()> {
    loop {
        let length = stream.read_u16().await.ok()?;
        let mut question = vec![0; usize::from(length)];
        stream.read_exact(&mut question).await.ok()?;
        let answer = answer(&question, &table, usize::from(u16::MAX))?;
        stream.write_u16(u16::try_from(answer.len()).ok()?).await.ok()?;
        stream.write_all(&answer).await.ok()?;
    }
}

/// The answer to one message; none where there is to be none.
fn answer(message: &[u8], table: &Mutex<Table>, most: usize) -> Option<Vec<u8>> {
    let (name, end) = question(message)?;
    let kind = u16::from_be_bytes([*message.get(end)?, *message.get(end + 1)?]);
    let known = {
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        *table.asked.entry(name.clone()).or_default() += 1;
        table.known.get(&name).cloned().unwrap_or(Known::Nothing)
    };
    let (code, addresses, seconds) = match known {
        Known::At(addresses, seconds) => (0, if kind == 1 { addresses } else { Vec::new() }, seconds),
        Known::Nothing => (3, Vec::new(), 0),
        Known::Fails => (2, Vec::new(), 0),
        Known::Silence => return None,
    };
    let fits = end + 4 + addresses.len() * 16 <= most;
    let shown = if fits { addresses.as_slice() } else { &[] };
    // An answer (0x80) with authority (4), cut (2), recursion desired (1) and available (0x80 of the next).
    let mut out = [&message[..2], &[0x85 | if fits { 0 } else { 2 }, 0x80 | code, 0, 1]].concat();
    out.extend(u16::try_from(shown.len()).ok()?.to_be_bytes());
    out.extend([0; 4]);
    out.extend_from_slice(&message[12..end + 4]);
    for address in shown {
        // The name of the question, type A, class IN.
        out.extend([0xc0, 12, 0, 1, 0, 1]);
        out.extend(seconds.to_be_bytes());
        out.extend([0, 4]);
        out.extend(address.octets());
    }
    Some(out)
}

/// The name that a message asks for, and where it ends.
fn question(message: &[u8]) -> Option<(String, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            message.get(at..at + 4)?;
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
}
