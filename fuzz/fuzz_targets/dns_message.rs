#![no_main]

use domain::base::iana::Rcode;
use domain::base::{Header, Message};
use libfuzzer_sys::fuzz_target;

// The module needs nothing else of the server, and has no business in its public API.
#[path = "../../ca-server/src/serving/dns/message.rs"]
mod message;

use message::{Asked, Question};

// What a client sends, with its length before it as on the wire, and then what a resolver sends.
fuzz_target!(|input: &[u8]| {
    let (asked, answered) = split(input);
    match message::read(asked) {
        Asked::Question(question) => pass_on(&question, asked, answered),
        Asked::Refused(answer) => {
            let answer = error(asked, answer.to_vec());
            assert_ne!(answer.header().rcode(), Rcode::SERVFAIL);
        }
        Asked::Nonsense => assert!(asked.len() < 12 || Header::for_message_slice(asked).qr()),
    }
});

fn split(input: &[u8]) -> (&[u8], &[u8]) {
    match input.split_first_chunk() {
        Some((length, rest)) => {
            rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()))
        }
        None => (input, &[]),
    }
}

fn pass_on(question: &Question, asked: &[u8], answered: &[u8]) {
    assert_eq!(question.as_bytes(), asked, "passed on as it came");
    let own = u16::from_be_bytes([asked[0], asked[1]]);
    let upstream = question.numbered(!own);
    assert_eq!(upstream.as_bytes()[..2], (!own).to_be_bytes());
    assert_eq!(upstream.as_bytes()[2..], asked[2..]);
    let failure = error(asked, question.failed().to_vec());
    assert_eq!(failure.header().rcode(), Rcode::SERVFAIL);

    // The shortest thing that is an answer: the question, called one.
    let mut echo = upstream.as_bytes().to_vec();
    Header::for_message_slice_mut(&mut echo).set_qr(true);
    for answered in [&echo, answered] {
        let Some(answer) = upstream.answered_by(answered) else {
            assert_ne!(answered, echo, "an answer is known for one");
            continue;
        };
        assert_eq!(answered[..2], (!own).to_be_bytes(), "to another question");
        assert_eq!(
            answer.is_truncated(),
            Header::for_message_slice(answered).tc()
        );
        let returned = question.returned(answer);
        assert_eq!(returned[..2], asked[..2], "under the client's number");
        assert_eq!(returned[2..], answered[2..], "and else as it is");
    }
    assert!(question.answered_by(&echo).is_none(), "another number");
}

/// An error of ours to `asked`.
fn error(asked: &[u8], answer: Vec<u8>) -> Message<Vec<u8>> {
    assert_eq!(answer[..2], asked[..2]);
    let answer = Message::from_octets(answer).expect("an error of ours is a message");
    assert!(answer.header().qr() && answer.header().ra());
    assert_ne!(answer.header().rcode(), Rcode::NOERROR);
    assert_eq!(
        answer.header().opcode(),
        Header::for_message_slice(asked).opcode()
    );
    assert!(answer.iter().all(|record| record.is_ok()));
    answer
}
