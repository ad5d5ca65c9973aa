//! For whom the pages about callers are: somebody on this machine, also through a forwarded port.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Lets a request through that comes from this machine, and not from a page of somebody else in its browser.
pub(super) async fn only(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if !peer.ip().to_canonical().is_loopback() {
        return refused("this page is only for the machine that the server runs on\n");
    }
    if !names_this_machine(request.headers()) {
        return refused("this page is only at localhost, or at a loopback address\n");
    }
    next.run(request).await
}

fn refused(text: &'static str) -> Response {
    (StatusCode::FORBIDDEN, text).into_response()
}

/// A page of somebody else can have a name of its own lead here, and then read what is under that name; and a proxy on this
/// machine brings requests of others, from a loopback address. Neither of them changes the name that a client asks for.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (
        hosts.next().and_then(|host| host.to_str().ok()),
        hosts.next(),
    ) else {
        return false;
    };
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().to_canonical().is_loopback();
    }
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.parse::<u16>().is_ok())
        .map_or(host, |(name, _)| name);
    let address = bare.unwrap_or(name).parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_and_localhost_name_this_machine() {
        for (hosts, good) in [
            (&["localhost:15014"][..], true),
            (&["LOCALHOST"], true),
            (&["127.0.0.1:15014"], true),
            (&["127.0.0.1"], true),
            (&["[::1]:15014"], true),
            (&["[::1]"], true),
            (&["127.0.0.6:15014"], true),
            (&["[::ffff:127.0.0.1]:15014"], true),
            // As somebody elsewhere asks a proxy in front of us.
            (&["10.0.0.7:15014"], false),
            (&["10.0.0.7"], false),
            (&["[fd00::7]:15014"], false),
            (&["0.0.0.0:15014"], false),
            (&[], false),
            (&[""], false),
            (&["evil.example:15014"], false),
            (&["localhost.evil.example"], false),
            (&["127.0.0.1.evil.example"], false),
            (&["localhost:evil"], false),
            (&["localhost", "evil.example"], false),
        ] {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, host.parse().unwrap());
            }
            assert_eq!(names_this_machine(&headers), good, "{hosts:?}");
        }
    }
}
