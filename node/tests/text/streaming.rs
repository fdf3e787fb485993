//! Text of tokens as they arrive.

use node::ids::Token;
use node::real::text::Tokenizer;
use proptest::prelude::*;

use crate::vocabularies::{bpe, corpus, spm, tokenizer};

/// All pieces that a detokeniser gives, joined; each must be whole characters by being a `str`.
fn streamed(tokenizer: &Tokenizer, tokens: &[Token]) -> Vec<String> {
    let mut detokenizer = tokenizer.detokenizer(None);
    let mut pieces: Vec<String> = tokens.iter().map(|token| detokenizer.push(*token).to_owned()).collect();
    pieces.push(detokenizer.finish().to_owned());
    pieces
}

#[test]
fn every_text_of_the_corpus_comes_back() {
    for tokenizer in [
        tokenizer(&bpe("smollm")),
        tokenizer(&bpe("llama-bpe")),
        tokenizer(&spm(false)),
        tokenizer(&spm(true)),
    ] {
        for text in corpus() {
            let tokens = tokenizer.encode(&text, false, false);
            // SentencePiece writes spaces as `▁`, and so cannot tell the two apart afterwards.
            let want =
                if tokenizer.name() == "SentencePiece" { text.replace('▁', " ") } else { text.clone() };
            assert_eq!(tokenizer.decode(&tokens), want, "{}", tokenizer.name());
            assert_eq!(streamed(&tokenizer, &tokens).concat(), want);
        }
    }
}

#[test]
fn a_character_over_several_tokens_appears_once_it_is_whole() {
    for tokenizer in [tokenizer(&bpe("smollm")), tokenizer(&spm(false))] {
        let tokens = tokenizer.encode("\u{10fffd}x", false, false);
        assert!(tokens.len() >= 3, "{tokens:?}");
        let pieces = streamed(&tokenizer, &tokens);
        assert!(!pieces.concat().contains(char::REPLACEMENT_CHARACTER), "{pieces:?}");
        assert_eq!(pieces[0], "");
        assert_eq!(pieces.iter().find(|piece| !piece.is_empty()).unwrap().chars().next(), Some('\u{10fffd}'));
    }
}

#[test]
fn half_a_character_becomes_a_replacement_only_when_the_rest_cannot_come() {
    let tokenizer = tokenizer(&spm(false));
    let byte = |b: u8| tokenizer.find(&format!("<0x{b:02X}>")).unwrap();
    let mut detokenizer = tokenizer.detokenizer(None);
    assert_eq!(detokenizer.push(byte(0xe2)), "");
    assert_eq!(detokenizer.push(byte(0x82)), "");
    assert_eq!(detokenizer.push(byte(0x41)), "\u{fffd}A");
    assert_eq!(detokenizer.push(byte(0xff)), "\u{fffd}");
    assert_eq!(detokenizer.push(byte(0xf0)), "");
    assert_eq!(detokenizer.finish(), "\u{fffd}");
    assert_eq!(detokenizer.finish(), "");
}

#[test]
fn the_space_that_encoding_added_goes_and_no_other() {
    let tokenizer = tokenizer(&spm(true));
    let tokens = tokenizer.encode("Hello world", false, false);
    assert_eq!(tokenizer.decode(&tokens), "Hello world");
    let continued = |before| {
        tokens
            .iter()
            .fold((String::new(), tokenizer.detokenizer(before)), |(text, mut d), token| {
                let text = text + d.push(*token);
                (text, d)
            })
            .0
    };
    assert_eq!(continued(tokens.last().copied()), " Hello world");
    assert_eq!(continued(tokenizer.bos()), "Hello world");
}

#[test]
fn tokens_that_steer_the_model_are_not_shown() {
    let tokenizer = tokenizer(&bpe("smollm"));
    let tokens = tokenizer.encode("<|im_start|>user<|im_end|><tool>", false, true);
    assert_eq!(tokenizer.decode(&tokens), "user<tool>");
    assert_eq!(tokenizer.decode(&[Token(u32::MAX)]), "");
}

proptest! {
    #[test]
    fn any_text_comes_back_and_any_tokens_give_text(text in any::<String>(), tokens in prop::collection::vec(0u32..1500, 0..40)) {
        thread_local! {
            static TOKENIZERS: [Tokenizer; 2] = [tokenizer(&bpe("smollm")), tokenizer(&spm(true))];
        }
        TOKENIZERS.with(|[bpe, spm]| {
            prop_assert_eq!(bpe.decode(&bpe.encode(&text, false, false)), text.clone());
            prop_assert_eq!(spm.decode(&spm.encode(&text, false, false)), text.replace('▁', " "));
            let tokens: Vec<Token> = tokens.iter().map(|id| Token(*id)).collect();
            for tokenizer in [bpe, spm] {
                prop_assert_eq!(streamed(tokenizer, &tokens).concat(), tokenizer.decode(&tokens));
            }
            Ok(())
        })?;
    }
}
