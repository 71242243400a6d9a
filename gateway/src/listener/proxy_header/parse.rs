//! The bytes of a PROXY header, versions 1 and 2.
//!
//! Invariant: total on any bytes; every beginning of a good header asks for more, and what follows it changes nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, CRLF included.
const V1_LONGEST: usize = 107;
/// Fixed part of version 2.
const V2_FIXED: usize = 16;
/// Addresses and extensions of version 2 that are read.
const V2_LONGEST: usize = 4096;

/// What a header says: source and destination, or nothing (`UNKNOWN`, `LOCAL`).
pub(crate) type Said = Option<(SocketAddr, SocketAddr)>;

/// Bytes that are no header, whatever follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What the header says and how long it is; `None`: it is not complete.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Said, usize)>, Malformed> {
    let begins = |signature: &[u8]| {
        let common = bytes.len().min(signature.len());
        bytes.get(..common) == signature.get(..common)
    };
    if begins(V2) {
        version2(bytes)
    } else if begins(V1) {
        version1(bytes)
    } else {
        Err(Malformed)
    }
}

fn version1(bytes: &[u8]) -> Result<Option<(Said, usize)>, Malformed> {
    let Some(end) = bytes.windows(2).take(V1_LONGEST - 1).position(|two| two == b"\r\n") else {
        return if bytes.len() < V1_LONGEST { Ok(None) } else { Err(Malformed) };
    };
    let line = bytes.get(V1.len()..end).and_then(|line| std::str::from_utf8(line).ok()).ok_or(Malformed)?;
    let said = match line.split(' ').collect::<Vec<_>>()[..] {
        ["UNKNOWN", ..] => None,
        [family @ ("TCP4" | "TCP6"), source, destination, from, to] => {
            let address = |ip: &str, port: &str| {
                let ip: IpAddr = ip.parse().map_err(|_| Malformed)?;
                let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
                let port = port.parse().ok().filter(|_| digits).ok_or(Malformed)?;
                if ip.is_ipv4() == (family == "TCP4") {
                    Ok(SocketAddr::new(ip, port))
                } else {
                    Err(Malformed)
                }
            };
            Some((address(source, from)?, address(destination, to)?))
        }
        _ => return Err(Malformed),
    };
    Ok(Some((said, end + 2)))
}

fn version2(bytes: &[u8]) -> Result<Option<(Said, usize)>, Malformed> {
    let Some(fixed) = bytes.get(..V2_FIXED) else { return Ok(None) };
    let [.., command, family, high, low] = fixed else { return Err(Malformed) };
    let length = usize::from(*high) << 8 | usize::from(*low);
    if length > V2_LONGEST {
        return Err(Malformed);
    }
    let Some(body) = bytes.get(V2_FIXED..V2_FIXED + length) else { return Ok(None) };
    let said = match (command, family) {
        (0x20, _) => None,
        (0x21, 0x11) => {
            let ip = |at| bytes_at::<4>(body, at).map(|ip| IpAddr::V4(Ipv4Addr::from(ip)));
            Some(pair(ip(0)?, ip(4)?, body, 8)?)
        }
        (0x21, 0x21) => {
            let ip = |at| bytes_at::<16>(body, at).map(|ip| IpAddr::V6(Ipv6Addr::from(ip)));
            Some(pair(ip(0)?, ip(16)?, body, 32)?)
        }
        // Unspecified, or a unix socket: nothing that rules could be about.
        (0x21, _) => None,
        _ => return Err(Malformed),
    };
    Ok(Some((said, V2_FIXED + length)))
}

fn pair(
    source: IpAddr,
    destination: IpAddr,
    body: &[u8],
    ports: usize,
) -> Result<(SocketAddr, SocketAddr), Malformed> {
    let port = |at| bytes_at::<2>(body, at).map(u16::from_be_bytes);
    Ok((SocketAddr::new(source, port(ports)?), SocketAddr::new(destination, port(ports + 2)?)))
}

fn bytes_at<const N: usize>(body: &[u8], at: usize) -> Result<[u8; N], Malformed> {
    body.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &length, body].concat()
    }

    #[test]
    fn both_versions_are_read_and_what_follows_stays() {
        let pair = |a: &str, b: &str| Some((a.parse().unwrap(), b.parse().unwrap()));
        let four = [192, 0, 2, 1, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];
        let mut six = [0; 36];
        (six[15], six[31], six[33], six[35]) = (1, 2, 7, 9);
        for (header, said) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 8080 80\r\n".to_vec(), pair("192.0.2.1:8080", "10.0.0.1:80")),
            (b"PROXY TCP6 ::1 ::2 7 9\r\n".to_vec(), pair("[::1]:7", "[::2]:9")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN whatever this is\r\n".to_vec(), None),
            (v2(0x21, 0x11, &four), pair("192.0.2.1:8080", "10.0.0.1:80")),
            (v2(0x21, 0x11, &[&four[..], b"\x04\0\x01x"].concat()), pair("192.0.2.1:8080", "10.0.0.1:80")),
            (v2(0x21, 0x21, &six), pair("[::1]:7", "[::2]:9")),
            (v2(0x20, 0, b""), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ] {
            let all = [&header[..], b"GET /"].concat();
            assert_eq!(parse(&all), Ok(Some((said, header.len()))), "{header:?}");
            for cut in 0..header.len() {
                assert_eq!(parse(&all[..cut]), Ok(None), "{:?}", &all[..cut]);
            }
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bytes in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 8080\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::2 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 +1 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 99999 80\r\n".to_vec(),
            b"PROXY TCP4  192.0.2.1 10.0.0.1 1 80\r\n".to_vec(),
            b"PROXY \r\n".to_vec(),
            b"proxy TCP4".to_vec(),
            [&b"PROXY "[..], &[b'x'; 200]].concat(),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x31, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 5000]),
        ] {
            assert_eq!(parse(&bytes), Err(Malformed), "{bytes:?}");
        }
    }
}
