"""Conversations: messages, their one rendering to token ids, and the tool calls in a reply."""
