"""Asks with OpenAI's package for Python: what it parses, iterates over and raises."""

import asyncio
import math
import sys

import openai

api, model = sys.argv[1:3]
client = openai.OpenAI(base_url=f"{api}/v1", api_key="any", max_retries=0, timeout=120)
capital = [{"role": "user", "content": "Name the capital city of France."}]


def refused(kind, **fields):
    """The request must be refused with an exception of this kind; gives it."""
    request = {"model": model, "messages": capital, "max_tokens": 1, **fields}
    try:
        client.chat.completions.create(**request)
    except kind as error:
        assert type(error) is kind, type(error)
        return error
    raise AssertionError(f"{fields} was not refused")


# Models.
models = client.models.list().data
assert [m.id for m in models] == [model], models
assert client.models.retrieve(model).id == model

# A chat, whole and streamed: the same text at the same seed.
whole = client.chat.completions.create(model=model, messages=capital, temperature=0, max_tokens=40)
text = whole.choices[0].message.content
assert "Paris" in text, text
assert whole.choices[0].finish_reason in ("stop", "length")
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
assert whole.choices[0].message.role == "assistant" and whole.object == "chat.completion"
stream = client.chat.completions.create(
    model=model, messages=capital, temperature=0, max_tokens=40, stream=True, stream_options={"include_usage": True}
)
pieces, usage, finish = [], None, None
for chunk in stream:
    if chunk.usage:
        usage = chunk.usage
    for choice in chunk.choices:
        pieces.append(choice.delta.content or "")
        finish = choice.finish_reason or finish
assert "".join(pieces) == text, (pieces, text)
assert len(pieces) > 3, "it did not come in pieces"
assert usage == whole.usage and finish == whole.choices[0].finish_reason

# The package's own accumulator understands the stream.
with client.chat.completions.stream(model=model, messages=capital, temperature=0, max_tokens=40) as events:
    final = events.get_final_completion()
assert final.choices[0].message.content == text, final

# Log-probabilities.
likely = client.chat.completions.create(
    model=model, messages=capital, temperature=0, max_tokens=8, logprobs=True, top_logprobs=3
)
words = likely.choices[0].logprobs.content
assert len(words) == likely.usage.completion_tokens
assert b"".join(bytes(word.bytes) for word in words).decode() == likely.choices[0].message.content
for word in words:
    assert len(word.top_logprobs) == 3 and word.top_logprobs[0].token == word.token
    assert sum(math.exp(top.logprob) for top in word.top_logprobs) <= 1.0001

# Choices, seeds, stop strings, biases.
two = [
    client.chat.completions.create(model=model, messages=capital, temperature=1.2, seed=5, n=2, max_tokens=12)
    for _ in range(2)
]
assert [c.message.content for c in two[0].choices] == [c.message.content for c in two[1].choices]
assert two[0].choices[0].message.content != two[0].choices[1].message.content
stopped = client.chat.completions.create(model=model, messages=capital, temperature=0, max_tokens=40, stop=["Paris"])
assert stopped.choices[0].message.content == text[: text.index("Paris")]
assert stopped.choices[0].finish_reason == "stop"
parts = [{"role": "developer", "content": "Rhyme."}, {"role": "user", "content": [{"type": "text", "text": "Who are you?"}]}]
client.chat.completions.create(model=model, messages=parts, max_completion_tokens=4, presence_penalty=0.5, frequency_penalty=0.5)

# The older completions.
plain = client.completions.create(model=model, prompt=["One, two, three,", "Red, green,"], temperature=0, max_tokens=6, logprobs=2)
assert [c.index for c in plain.choices] == [0, 1]
assert all("".join(c.logprobs.tokens) == c.text for c in plain.choices)
assert all(len(c.logprobs.token_logprobs) == 6 for c in plain.choices)
pieces = client.completions.create(model=model, prompt="One, two, three,", temperature=0, max_tokens=6, stream=True)
assert "".join(p.choices[0].text for p in pieces) == plain.choices[0].text
assert client.completions.create(model=model, prompt="Echo", echo=True, max_tokens=0).choices[0].text == "Echo"

# Errors are the package's own.
missing = refused(openai.NotFoundError, model="gpt-4o")
assert missing.status_code == 404 and missing.code == "model_not_found", missing
assert model in missing.message, missing.message
hot = refused(openai.BadRequestError, temperature=3)
assert hot.param == "temperature" and hot.type == "invalid_request_error", hot
assert refused(openai.BadRequestError, response_format={"type": "json_object"}).param == "response_format"
image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
assert refused(openai.BadRequestError, messages=image).param == "messages[0].content[0]"
long = refused(openai.BadRequestError, messages=[{"role": "user", "content": "word " * 20_000}])
assert long.code == "context_length_exceeded", long
assert refused(openai.BadRequestError, stream=True, n=0).param == "n"
try:
    client.embeddings.create(model=model, input="x")
    raise AssertionError("there are no embeddings")
except openai.NotFoundError as error:
    assert error.code == "unknown_url", error


# Several at once, and one that is left in the middle.
async def together():
    async with openai.AsyncOpenAI(base_url=f"{api}/v1", api_key="any", max_retries=0, timeout=120) as ask:
        one = lambda i: ask.completions.create(model=model, prompt=f"{i} and", seed=i, max_tokens=8)
        alone = [(await one(i)).choices[0].text for i in range(6)]
        at_once = [c.choices[0].text for c in await asyncio.gather(*(one(i) for i in range(6)))]
        assert alone == at_once, (alone, at_once)
        left = await ask.chat.completions.create(model=model, messages=capital, stream=True, max_tokens=4000)
        async for _ in left:
            break
        await left.close()


asyncio.run(together())
print(f"openai {openai.__version__} for Python: {text.strip()!r}")
