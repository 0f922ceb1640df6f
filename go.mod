module github.com/seed-f5e3b97b/bulkhead

go 1.26
