-- wrk with an image as the body: `wrk -s loadtests/recipes/wrk.lua URL -- IMAGE`; without IMAGE, docs/coffee.jpg.
function init(arguments)
  local file = assert(io.open(arguments[1] or "docs/coffee.jpg", "rb"))
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "image/jpeg"
  wrk.body = file:read("*all")
  file:close()
end
