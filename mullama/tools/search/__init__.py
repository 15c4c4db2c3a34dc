"""Search of the web as tools of mullama itself: search engines, pages as text, and passages by relevance."""
