//! What a message asks, and the answers that we can give ourselves.

use bytes::Bytes;
use domain::base::iana::{Opcode, Rcode};
use domain::base::{Message, MessageBuilder};

/// What came.
#[derive(Debug)]
pub(super) enum Asked {
    /// One question that can be passed on.
    Question(Question),
    /// One that cannot, with the answer to it.
    Refused(Bytes),
    /// Nothing that has an answer: too short for a header, or an answer itself.
    Nonsense,
}

/// One well-formed question.
#[derive(Clone, Debug)]
pub(super) struct Question(Message<Vec<u8>>);

pub(super) fn read(message: &[u8]) -> Asked {
    let Ok(message) = Message::from_octets(message.to_vec()) else {
        return Asked::Nonsense;
    };
    if message.header().qr() {
        return Asked::Nonsense;
    }
    let refused = |rcode| Asked::Refused(error(&message, rcode));
    if message.header().opcode() != Opcode::QUERY {
        return refused(Rcode::NOTIMP);
    }
    let is_whole = message.sole_question().is_ok() && message.iter().all(|record| record.is_ok());
    if !is_whole || !is_name_plain(message.as_slice()) {
        return refused(Rcode::FORMERR);
    }
    // A transfer is many messages, and none of ours to give away.
    if message.is_xfr() {
        return refused(Rcode::REFUSED);
    }
    Asked::Question(Question(message))
}

/// Whether the question's name stands there as it is. There is no name before it that it could refer to: it would lead into
/// the header, and be another name under another number.
fn is_name_plain(message: &[u8]) -> bool {
    let mut rest = message.get(HEADER..).unwrap_or_default();
    while let Some((&length, behind)) = rest.split_first() {
        match length {
            0 => return true,
            1..64 => rest = behind.get(usize::from(length)..).unwrap_or_default(),
            _ => return false,
        }
    }
    false
}

impl Question {
    /// The same question under another number: that of a client is easy to guess.
    pub(super) fn numbered(&self, id: u16) -> Self {
        let mut question = self.clone();
        question.0.header_mut().set_id(id);
        question
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// `bytes` if they are an answer to this question.
    pub(super) fn answered_by(&self, bytes: &[u8]) -> Option<Answer> {
        let answer = Message::from_octets(bytes.to_vec()).ok()?;
        answer.is_answer(&self.0).then_some(Answer(answer))
    }

    /// That the resolver could not be asked.
    pub(super) fn failed(&self) -> Bytes {
        error(&self.0, Rcode::SERVFAIL)
    }

    /// The answer as the client expects it.
    pub(super) fn returned(&self, mut answer: Answer) -> Bytes {
        answer.0.header_mut().set_id(self.0.header().id());
        answer.0.into_octets().into()
    }
}

/// What a resolver has said to one question.
#[derive(Debug)]
pub(super) struct Answer(Message<Vec<u8>>);

impl Answer {
    /// It is longer than fits into a datagram.
    pub(super) fn is_truncated(&self) -> bool {
        self.0.header().tc()
    }
}

fn error(message: &Message<Vec<u8>>, rcode: Rcode) -> Bytes {
    let mut answer = MessageBuilder::new_bytes().start_error(message, rcode);
    answer.header_mut().set_ra(true);
    let mut answer = answer.additional();
    // Without it, a client would take it that nobody here knows EDNS (RFC 6891, 7).
    if message.opt().is_some() {
        // There is room: the question is all that is in it.
        let _ = answer.opt(|opt| {
            opt.set_udp_payload_size(UDP_PAYLOAD);
            Ok(())
        });
    }
    answer.finish().freeze()
}

/// RFC 1035, 4.1.1.
const HEADER: usize = 12;
/// What passes networks without being cut to pieces; it is of no use over TCP, but must be said.
const UDP_PAYLOAD: u16 = 1232;

#[cfg(test)]
mod tests {
    use domain::base::iana::Rtype;
    use domain::base::{Header, Name};
    use proptest::prelude::*;

    use super::*;

    fn question(name: &str, rtype: Rtype, has_edns: bool) -> Bytes {
        let mut builder = MessageBuilder::new_bytes();
        builder.header_mut().set_id(7);
        builder.header_mut().set_rd(true);
        let mut builder = builder.question();
        let name: Name<Vec<u8>> = name.parse().unwrap();
        builder.push((name, rtype)).unwrap();
        let mut builder = builder.additional();
        if has_edns {
            builder.opt(|_| Ok(())).unwrap();
        }
        builder.finish().freeze()
    }

    fn refusal(message: &[u8]) -> Message<Bytes> {
        match read(message) {
            Asked::Refused(answer) => Message::from_octets(answer).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_question_goes_out_under_another_number_and_its_answer_comes_back_under_the_first() {
        let Asked::Question(asked) = read(&question("a.example.", Rtype::A, true)) else {
            panic!("not a question");
        };
        let upstream = asked.numbered(99);
        let sent = Message::from_octets(upstream.as_bytes().to_vec()).unwrap();
        assert_eq!(sent.header().id(), 99);
        let answer = MessageBuilder::new_bytes().start_answer(&sent, Rcode::NOERROR);
        let answer = answer.unwrap().finish().freeze();
        assert!(asked.answered_by(&answer).is_none(), "another number");
        let answer = upstream.answered_by(&answer).unwrap();
        let back = Message::from_octets(asked.returned(answer)).unwrap();
        assert_eq!((back.header().id(), back.header().rd()), (7, true));

        let other = question("b.example.", Rtype::A, false);
        let mut other = other.to_vec();
        Header::for_message_slice_mut(&mut other).set_qr(true);
        Header::for_message_slice_mut(&mut other).set_id(99);
        assert!(upstream.answered_by(&other).is_none(), "another name");
    }

    #[test]
    fn an_error_repeats_the_question_and_speaks_edns_with_those_who_do() {
        for has_edns in [false, true] {
            let Asked::Question(asked) = read(&question("a.example.", Rtype::AAAA, has_edns))
            else {
                panic!("not a question");
            };
            let failed = Message::from_octets(asked.failed()).unwrap();
            assert!(failed.is_answer(&asked.0));
            assert_eq!(failed.header().rcode(), Rcode::SERVFAIL);
            assert_eq!(failed.opt().is_some(), has_edns);
        }
    }

    #[test]
    fn what_cannot_be_passed_on_is_refused_by_its_reason() {
        let good = question("a.example.", Rtype::A, false).to_vec();
        let mut update = good.clone();
        Header::for_message_slice_mut(&mut update).set_opcode(Opcode::UPDATE);
        assert_eq!(refusal(&update).header().rcode(), Rcode::NOTIMP);
        let cut = &good[..good.len() - 3];
        assert_eq!(refusal(cut).header().rcode(), Rcode::FORMERR);
        assert_eq!(refusal(&good[..12]).header().rcode(), Rcode::FORMERR);
        // The name is whatever the number is: here the root.
        let header = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let leads_into_it = [&header[..], &[0xc0, 0, 0, 1, 0, 1]].concat();
        assert_eq!(refusal(&leads_into_it).header().rcode(), Rcode::FORMERR);
        let transfer = question("example.", Rtype::AXFR, false).to_vec();
        assert_eq!(refusal(&transfer).header().rcode(), Rcode::REFUSED);

        let mut answer = good.clone();
        Header::for_message_slice_mut(&mut answer).set_qr(true);
        for nonsense in [&answer[..], &good[..11], &[]] {
            assert!(matches!(read(nonsense), Asked::Nonsense));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Asked::Refused(answer) = read(&bytes) {
                prop_assert_eq!(&bytes[..2], &answer[..2]);
                prop_assert!(Message::from_octets(answer).unwrap().header().qr());
            }
        }
    }
}
