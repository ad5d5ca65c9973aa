//! As much HTTP/1.1 as a local partner needs: one request on a new connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// Bounds the connect and each read and write.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Result<Response> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)
        .with_context(|| format!("cannot connect to {address}"))?;
    stream
        .set_read_timeout(Some(TIMEOUT))
        .context("cannot set a timeout")?;
    stream
        .set_write_timeout(Some(TIMEOUT))
        .context("cannot set a timeout")?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    exchange(&mut stream, address, &request)
}

/// The answer to this request, which says that the connection is to be closed.
pub(crate) fn exchange(
    stream: &mut (impl Read + Write),
    address: SocketAddr,
    request: &str,
) -> Result<Response> {
    // In one piece: the second of two small ones would wait until the first is acknowledged.
    stream
        .write_all(request.as_bytes())
        .with_context(|| format!("cannot write to {address}"))?;
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read from {address}"))?;
    parse(&String::from_utf8_lossy(&bytes)).with_context(|| format!("bad HTTP from {address}"))
}

fn parse(text: &str) -> Result<Response> {
    let (head, body) = text.split_once("\r\n\r\n").context("no end of headers")?;
    let status = head.split(' ').nth(1).context("no status")?;
    let status = status
        .parse()
        .with_context(|| format!("status {status:?}"))?;
    let chunked = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| {
            name.eq_ignore_ascii_case("transfer-encoding") && value.trim() == "chunked"
        });
    let body = if chunked {
        unchunk(body)?
    } else {
        body.to_owned()
    };
    Ok(Response { status, body })
}

fn unchunk(mut rest: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").context("no chunk size")?;
        let size =
            usize::from_str_radix(size, 16).with_context(|| format!("chunk size {size:?}"))?;
        if size == 0 {
            return Ok(body);
        }
        let Some(chunk) = after.get(..size) else {
            bail!("a chunk is cut short")
        };
        body.push_str(chunk);
        rest = after[size..]
            .strip_prefix("\r\n")
            .context("no end of chunk")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_body_is_joined() {
        let text =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let response = parse(text).unwrap();
        assert_eq!((response.status, response.body.as_str()), (200, "abcde"));
    }

    #[test]
    fn a_body_that_is_cut_short_is_an_error() {
        assert!(parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc").is_err());
        assert!(parse("HTTP/1.1 200 OK\r\n").is_err());
    }
}
