"""The page over all rooms: people write, review and judge here, and runs are started and watched.

It speaks to the rooms through `tuition.api` only, keeps nothing but sessions' cookies by itself, and reaches no
other machine: every script and style it serves lies in `static/`.

To add a page: a module in `pages/` with a `router`, a template in `templates/`, and a row in `PAGES`
(`pages/__init__.py`), which gives it its place in the navigation and says whose it is. `web.py` has what a page
needs: `render`, `redirect`, `Me` (who asks) and `Here` (the store and the folders).
"""
