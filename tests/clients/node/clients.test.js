// The npm clients of the three APIs against a live server (MULLAMA_URL): answers, streams, calls, objects, errors.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import Anthropic from '@anthropic-ai/sdk'
import { createAnthropic } from '@ai-sdk/anthropic'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { embedMany, generateObject, generateText, streamText, tool } from 'ai'
import { Ollama } from 'ollama'
import OpenAI from 'openai'
import { z } from 'zod'

const url = process.env.MULLAMA_URL
const baseURL = `${url}/v1`
const FRANCE = [{ role: 'user', content: 'What is the capital of France?' }]
const OSLO = [{ role: 'user', content: 'What is the weather in Oslo?' }]
const JOKE = 'Tell me a joke about cats.'
const parameters = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] }
const named = { type: 'function', function: { name: 'get_weather', description: 'weather', parameters } }

// ollama

const llama = new Ollama({ host: url })

test('ollama answers, streams and ends its stream', async () => {
  const whole = await llama.chat({ model: 'script', messages: FRANCE })
  assert.equal(whole.message.content, 'Paris.')
  let text = ''
  let last
  for await (const part of await llama.chat({ model: 'script', messages: FRANCE, stream: true })) {
    text += part.message.content
    last = part
  }
  assert.equal(text, 'Paris.')
  assert.equal(last.done_reason, 'stop')
  assert.ok(last.eval_count > 0)
})

test('ollama calls tools, lists, shows and embeds', async () => {
  const { message } = await llama.chat({ model: 'script', messages: OSLO, tools: [named] })
  assert.deepEqual(message.tool_calls[0].function.arguments, { city: 'Oslo' })
  assert.ok((await llama.list()).models.some((model) => model.name === 'tiny'))
  assert.ok((await llama.show({ model: 'tiny' })).capabilities.includes('tools'))
  assert.equal((await llama.embed({ model: 'tiny', input: ['a', 'b'] })).embeddings.length, 2)
})

test('ollama is told of an unknown model', async () => {
  await assert.rejects(llama.chat({ model: 'none', messages: FRANCE }), /model 'none' not found/)
})

test('ollama can leave its stream', async () => {
  const client = new Ollama({ host: url })
  const asked = [{ role: 'user', content: 'slow 20ms 5000 tokens' }]
  const stream = await client.chat({ model: 'script', messages: asked, stream: true })
  await assert.rejects(async () => {
    for await (const _ of stream) client.abort()
  }, { name: 'AbortError' })
})

// openai

const gpt = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 })

test('openai streams chat with its own accumulator', async () => {
  const stream = gpt.chat.completions.stream({ model: 'script', messages: FRANCE, stream_options: { include_usage: true } })
  let text = ''
  stream.on('content', (delta) => { text += delta })
  const final = await stream.finalChatCompletion()
  assert.equal(text, 'Paris.')
  assert.equal(final.choices[0].finish_reason, 'stop')
  assert.ok(final.usage.total_tokens > 0)
})

test('openai runs tools', async () => {
  let asked
  const runner = gpt.chat.completions.runTools({
    model: 'tiny',
    messages: OSLO,
    max_tokens: 100,
    tools: [{ type: 'function', function: { ...named.function, parse: JSON.parse, function: (given) => { asked = given; return 'rain' } } }],
  }, { maxChatCompletions: 2 })
  await runner.done().catch(() => {}) // the small model may go on calling; that it was answered is what counts
  assert.equal(asked.city, 'Oslo')
})

test('openai streams responses with its own accumulator', async () => {
  const stream = gpt.responses.stream({ model: 'script', input: OSLO[0].content, tools: [{ type: 'function', name: 'get_weather', parameters, strict: false }] })
  const final = await stream.finalResponse()
  const call = final.output.find((item) => item.type === 'function_call')
  assert.deepEqual(JSON.parse(call.arguments), { city: 'Oslo' })
})

test('openai embeds and raises its own errors', async () => {
  const { data } = await gpt.embeddings.create({ model: 'tiny', input: ['a', 'b'] })
  assert.ok(data[1].embedding.length > 8)
  await assert.rejects(gpt.chat.completions.create({ model: 'none', messages: FRANCE }), OpenAI.NotFoundError)
})

// anthropic

const claude = new Anthropic({ baseURL: url, apiKey: 'none', maxRetries: 0 })

test('anthropic streams messages and the JSON of its tools', async () => {
  const stream = claude.messages.stream({ model: 'script', max_tokens: 200, messages: OSLO, tools: [{ name: 'get_weather', input_schema: parameters }] })
  const pieces = []
  stream.on('inputJson', (piece) => pieces.push(piece))
  const final = await stream.finalMessage()
  assert.equal(final.stop_reason, 'tool_use')
  assert.deepEqual(final.content.find((block) => block.type === 'tool_use').input, { city: 'Oslo' })
  assert.ok(pieces.length > 0)
})

test('anthropic thinks, counts and raises its own errors', async () => {
  const thought = await claude.messages.create({ model: 'tiny', max_tokens: 1100, messages: FRANCE, thinking: { type: 'enabled', budget_tokens: 1024 } })
  assert.equal(thought.content[0].type, 'thinking')
  assert.ok((await claude.messages.countTokens({ model: 'tiny', messages: FRANCE })).input_tokens > 0)
  await assert.rejects(claude.messages.create({ model: 'none', max_tokens: 9, messages: FRANCE }), Anthropic.NotFoundError)
})

// The AI SDK checks every chunk against its schemas.

const providers = {
  responses: createOpenAI({ baseURL, apiKey: 'none' })('script'),
  chat: createOpenAI({ baseURL, apiKey: 'none' }).chat('script'),
  compatible: createOpenAICompatible({ name: 'mullama', baseURL, includeUsage: true, supportsStructuredOutputs: true })('script'),
  anthropic: createAnthropic({ baseURL, apiKey: 'none' })('script'),
}
const tools = { get_weather: tool({ description: 'weather', inputSchema: z.object({ city: z.string() }) }) }

for (const [name, model] of Object.entries(providers)) {
  test(`ai answers and streams by ${name}`, async () => {
    assert.equal((await generateText({ model, messages: FRANCE, maxRetries: 0 })).text, 'Paris.')
    const stream = streamText({ model, messages: FRANCE, maxRetries: 0, onError: ({ error }) => { throw error } })
    let text = ''
    for await (const piece of stream.textStream) text += piece
    assert.equal(text, 'Paris.')
    assert.equal(await stream.finishReason, 'stop')
    assert.ok((await stream.usage).outputTokens > 0)
  })

  test(`ai calls tools by ${name}`, async () => {
    const whole = await generateText({ model, messages: OSLO, tools, maxRetries: 0 })
    assert.deepEqual(whole.toolCalls.map((call) => [call.toolName, call.input]), [['get_weather', { city: 'Oslo' }]])
    const stream = streamText({ model, messages: OSLO, tools, maxRetries: 0 })
    const calls = await stream.toolCalls
    assert.deepEqual(calls.map((call) => [call.toolName, call.input]), [['get_weather', { city: 'Oslo' }]])
    assert.equal(await stream.finishReason, 'tool-calls')
  })

  test(`ai fills in an object by ${name}`, async () => {
    const schema = z.object({ setup: z.string(), punchline: z.string() })
    const { object } = await generateObject({ model, schema, prompt: JOKE, maxRetries: 0 })
    assert.deepEqual(Object.keys(object), ['setup', 'punchline'])
  })
}

test('ai reads the thinking of the built-in model', async () => {
  const model = createOpenAICompatible({ name: 'mullama', baseURL })('tiny')
  const answer = await generateText({ model, messages: FRANCE, maxRetries: 0, providerOptions: { mullama: { reasoningEffort: 'high' } } })
  assert.ok(answer.reasoningText.length > 5)
  assert.match(answer.text, /Paris/)
})

test('ai embeds many', async () => {
  const model = createOpenAICompatible({ name: 'mullama', baseURL }).embeddingModel('tiny')
  assert.equal((await embedMany({ model, values: ['a', 'b'] })).embeddings.length, 2)
})
