//! Requests that are larger than a link's MTU, on purpose: over UDP they go in fragments of IP.

use crate::sip::Message;

/// Of this lab only.
const PAD: &str = "X-Lab-Pad";

/// Makes a request so many bytes long at least.
pub fn pad(request: &mut Message, bytes: usize) {
    let around = PAD.len() + ": \r\n".len();
    let missing = bytes.saturating_sub(request.encode().len());
    if missing > 0 {
        request
            .headers
            .push(PAD, "x".repeat(missing.saturating_sub(around).max(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_long_as_it_is_to_be() {
        for bytes in [0, 10, 80, 3000] {
            let mut request = Message::request("MESSAGE", "tel:+1");
            request.body = b"hi".to_vec();
            let least = request.encode().len();
            pad(&mut request, bytes);
            let got = request.encode().len();
            let exact = if bytes <= least { least } else { bytes };
            assert_eq!(got, exact, "{bytes}");
            assert!(Message::parse(&request.encode()).is_ok());
        }
    }
}
