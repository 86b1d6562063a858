-- The shop's tables, customers and products.
create table customers (id int primary key, name text not null, email text not null);
create table products (id int primary key, name text not null, price_cents int not null);
create table orders (
  id bigint generated always as identity primary key,
  reference uuid not null unique,
  customer_id int not null references customers,
  currency text not null,
  placed_at timestamptz not null default clock_timestamp()
);
create table order_lines (
  order_id bigint not null references orders,
  product_id int not null references products,
  quantity int not null,
  price_cents int not null,
  primary key (order_id, product_id)
);
create table payments (order_id bigint primary key references orders, amount_cents bigint not null, paid_at timestamptz not null default clock_timestamp());
create table invoices (id int not null, customer_id int not null, issued_on date not null, body text not null);

insert into customers select n, 'Customer ' || n, 'customer' || n || '@example.com' from generate_series(1, 20000) as n;
insert into products select n, 'Product ' || n, 100 + n * 37 % 9900 from generate_series(1, 500) as n;
